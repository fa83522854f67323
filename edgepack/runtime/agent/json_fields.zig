//! Objects in requests: each field once, of its kind, and no longer than it may be.

const std = @import("std");
const Problem = @import("problem.zig").Problem;
const json_tokens = @import("json_tokens.zig");
const Tokens = json_tokens.Tokens;

pub const Error = json_tokens.Error || error{Problem};

pub const max_key_bytes = 64;

/// Which fields of an object have come; a field that comes twice is refused.
pub fn Seen(comptime Field: type) type {
    return struct {
        set: std.EnumSet(Field) = .{},

        const Self = @This();

        /// Null for a key that is none of ours.
        pub fn field(self: *Self, key: []const u8, problem: *Problem) error{Problem}!?Field {
            const known = std.meta.stringToEnum(Field, key) orelse return null;
            if (self.set.contains(known)) return problem.because(.bad_request, "\"{s}\" is there twice", .{key});
            self.set.insert(known);
            return known;
        }

        pub fn has(self: *const Self, known: Field) bool {
            return self.set.contains(known);
        }
    };
}

pub fn string(tokens: *Tokens, what: []const u8, buffer: []u8, problem: *Problem) Error![]const u8 {
    if (try tokens.peek() != .string) return problem.because(.bad_request, "{s} is not a string", .{what});
    return tokens.string(buffer) catch |err| switch (err) {
        error.TooLong => problem.because(.bad_request, "{s} is longer than {d} bytes", .{ what, buffer.len }),
        else => |e| e,
    };
}

pub fn boolean(tokens: *Tokens, what: []const u8, problem: *Problem) Error!bool {
    switch (try tokens.peek()) {
        .true, .false => return try tokens.next() == .true,
        else => return problem.because(.bad_request, "{s} is not true or false", .{what}),
    }
}

/// An object as text.
pub fn object(tokens: *Tokens, what: []const u8, buffer: []u8, problem: *Problem) Error![]const u8 {
    if (try tokens.peek() != .object_begin) return problem.because(.bad_request, "{s} is not an object", .{what});
    var out: std.Io.Writer = .fixed(buffer);
    tokens.copyValue(&out) catch |err| return switch (err) {
        error.WriteFailed => problem.because(.bad_request, "{s} is longer than {d} bytes", .{ what, buffer.len }),
        else => |e| e,
    };
    return out.buffered();
}

/// A number of bytes: not negative, and small enough that a few of them can be added.
pub fn size(tokens: *Tokens, what: []const u8, problem: *Problem) Error!u64 {
    if (try tokens.peek() == .number) {
        if (std.fmt.parseInt(u63, try tokens.number(), 10)) |bytes| {
            if (bytes <= 1 << 60) return bytes;
        } else |_| {}
    }
    return problem.because(.bad_request, "{s} is not a number of bytes", .{what});
}

/// What is wrong with a document, as its reader's error says it.
pub fn explain(err: json_tokens.Error, problem: *Problem) error{ Problem, ReadFailed } {
    return switch (err) {
        error.ReadFailed => error.ReadFailed,
        error.Syntax => problem.because(.bad_request, "the request is not well-formed JSON of the expected kind", .{}),
        error.TooLong => problem.because(.bad_request, "a string or number in the request is too long", .{}),
        error.TooDeep => problem.because(.bad_request, "the request is nested too deep", .{}),
    };
}
