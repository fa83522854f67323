//! JSON from a stream, token by token, in bounded memory: a value is never longer than its caller's
//! buffer, nesting never deeper than `nesting_buffer` has bits, and the document itself is never kept.

const std = @import("std");
const Io = std.Io;

/// Longer than any number that a printer of float64 makes in full.
pub const max_number_bytes = 1100;

/// Of a value that is copied.
const max_copied_depth = 32;

pub const Error = error{ Syntax, TooLong, TooDeep, ReadFailed };

pub const Kind = enum { object_begin, object_end, array_begin, array_end, true, false, null, number, string, end };

pub const Tokens = struct {
    source: std.json.Reader,
    nesting: std.heap.FixedBufferAllocator,
    nesting_buffer: [256]u8 = undefined,
    number_buffer: [max_number_bytes]u8 = undefined,

    /// In place: the scanner holds a pointer to `nesting`.
    pub fn init(self: *Tokens, reader: *Io.Reader) void {
        self.nesting = .init(&self.nesting_buffer);
        self.source = .init(self.nesting.allocator(), reader);
    }

    pub fn peek(self: *Tokens) Error!Kind {
        const kind = self.source.peekNextTokenType() catch |err| return known(err);
        return switch (kind) {
            .end_of_document => .end,
            inline else => |same| @field(Kind, @tagName(same)),
        };
    }

    /// A token that is neither a number nor a string.
    pub fn next(self: *Tokens) Error!Kind {
        return switch (self.source.next() catch |err| return known(err)) {
            .object_begin => .object_begin,
            .object_end => .object_end,
            .array_begin => .array_begin,
            .array_end => .array_end,
            .true => .true,
            .false => .false,
            .null => .null,
            .end_of_document => .end,
            else => unreachable, // the caller has peeked
        };
    }

    /// The next token is of this kind; a number or string is left for its own function.
    pub fn expect(self: *Tokens, kind: Kind) Error!void {
        if (try self.peek() != kind or try self.next() != kind) return error.Syntax;
    }

    /// The text of the number that peek() saw; valid until the next call.
    pub fn number(self: *Tokens) Error![]const u8 {
        var len: usize = 0;
        while (true) {
            const piece, const last = switch (self.source.next() catch |err| return known(err)) {
                .number => |text| .{ text, true },
                .partial_number => |text| .{ text, false },
                else => unreachable, // the caller has peeked
            };
            if (last and len == 0) return piece;
            if (piece.len > self.number_buffer.len - len) return error.TooLong;
            @memcpy(self.number_buffer[len..][0..piece.len], piece);
            len += piece.len;
            if (last) return self.number_buffer[0..len];
        }
    }

    /// The string that peek() saw, unescaped, in `buffer`; it is passed by even where it is too long.
    pub fn string(self: *Tokens, buffer: []u8) Error![]const u8 {
        var len: usize = 0;
        var fits = true;
        while (true) {
            const token = self.source.next() catch |err| return known(err);
            const piece: []const u8 = switch (token) {
                .string, .partial_string => |text| text,
                .partial_string_escaped_1 => |*bytes| bytes,
                .partial_string_escaped_2 => |*bytes| bytes,
                .partial_string_escaped_3 => |*bytes| bytes,
                .partial_string_escaped_4 => |*bytes| bytes,
                else => unreachable, // the caller has peeked
            };
            fits = fits and piece.len <= buffer.len - len;
            if (fits) {
                @memcpy(buffer[len..][0..piece.len], piece);
                len += piece.len;
            }
            if (token == .string) return if (fits) buffer[0..len] else error.TooLong;
        }
    }

    /// The next key of the object, or null at its end.
    pub fn key(self: *Tokens, buffer: []u8) Error!?[]const u8 {
        if (try self.peek() == .object_end) {
            _ = try self.next();
            return null;
        }
        return self.string(buffer) catch |err| switch (err) {
            error.TooLong => "", // none that anybody asks for
            else => |e| return e,
        };
    }

    pub fn skip(self: *Tokens) Error!void {
        switch (try self.peek()) {
            .array_end, .object_end, .end => return error.Syntax,
            else => self.source.skipValue() catch |err| return known(err),
        }
    }

    /// Copies an array of numbers, true, false and null, nested or not, as text.
    pub fn copyArray(self: *Tokens, gpa: std.mem.Allocator, into: *std.ArrayList(u8)) (Error || error{OutOfMemory})!void {
        var depth: usize = 0;
        while (true) {
            const kind = try self.peek();
            const text = switch (kind) {
                .array_begin => "[",
                .array_end => "]",
                .number => try self.number(),
                .true, .false, .null => @tagName(kind),
                else => return error.Syntax,
            };
            if (kind != .number) _ = try self.next();
            const separate = into.items.len > 0 and kind != .array_end and into.items[into.items.len - 1] != '[';
            if (separate) try into.append(gpa, ',');
            try into.appendSlice(gpa, text);
            if (kind == .array_begin) depth += 1;
            if (kind == .array_end) depth -= 1;
            if (depth == 0) return;
        }
    }

    /// Copies the next value, whatever it is, as text without spaces.
    pub fn copyValue(self: *Tokens, out: *Io.Writer) (Error || error{WriteFailed})!void {
        var levels: [max_copied_depth]struct { object: bool, items: usize } = undefined;
        var depth: usize = 0;
        while (true) {
            const kind = try self.peek();
            if (kind == .end) return error.Syntax;
            const closes = kind == .object_end or kind == .array_end;
            if (depth > 0 and !closes) {
                const level = &levels[depth - 1];
                if (level.items > 0) try out.writeByte(if (level.object and level.items % 2 == 1) ':' else ',');
                level.items += 1;
            }
            switch (kind) {
                .string => try self.copyString(out),
                .number => try out.writeAll(try self.number()),
                else => try out.writeAll(switch (try self.next()) {
                    .object_begin => "{",
                    .object_end => "}",
                    .array_begin => "[",
                    .array_end => "]",
                    else => |literal| @tagName(literal),
                }),
            }
            if (closes) depth = std.math.sub(usize, depth, 1) catch return error.Syntax;
            if (kind == .object_begin or kind == .array_begin) {
                if (depth == levels.len) return error.TooDeep;
                levels[depth] = .{ .object = kind == .object_begin, .items = 0 };
                depth += 1;
            }
            if (depth == 0) return;
        }
    }

    fn copyString(self: *Tokens, out: *Io.Writer) (Error || error{WriteFailed})!void {
        try out.writeByte('"');
        while (true) {
            const token = self.source.next() catch |err| return known(err);
            try std.json.Stringify.encodeJsonStringChars(switch (token) {
                .string, .partial_string => |text| text,
                .partial_string_escaped_1 => |*bytes| bytes,
                .partial_string_escaped_2 => |*bytes| bytes,
                .partial_string_escaped_3 => |*bytes| bytes,
                .partial_string_escaped_4 => |*bytes| bytes,
                else => unreachable, // the caller has peeked
            }, .{}, out);
            if (token == .string) return out.writeByte('"');
        }
    }

    fn known(err: anyerror) Error {
        return switch (err) {
            error.ReadFailed => error.ReadFailed,
            error.OutOfMemory => error.TooDeep,
            else => error.Syntax,
        };
    }
};

test "a value is copied as it is, without its spaces" {
    const testing = std.testing;
    inline for (.{
        .{ "{ \"a\" : [1, -2.50e3, {\"b\":null}, []], \"\\u00e9\\n\\\"\" : { }, \"c\":[true ,false]}", "{\"a\":[1,-2.50e3,{\"b\":null},[]],\"\u{e9}\\n\\\"\":{},\"c\":[true,false]}" },
        .{ " \"x\" ", "\"x\"" },
        .{ "12", "12" },
    }) |case| {
        var reader: Io.Reader = .fixed(case[0]);
        var tokens: Tokens = undefined;
        tokens.init(&reader);
        var buffer: [256]u8 = undefined;
        var out: Io.Writer = .fixed(&buffer);
        try tokens.copyValue(&out);
        try testing.expectEqualStrings(case[1], out.buffered());
        try tokens.expect(.end);
    }
    const deep: [33]u8 = @splat('[');
    for ([_][]const u8{ "", "{", "[1", "{\"a\":", &deep }) |bad| {
        var reader: Io.Reader = .fixed(bad);
        var tokens: Tokens = undefined;
        tokens.init(&reader);
        var buffer: [256]u8 = undefined;
        var out: Io.Writer = .fixed(&buffer);
        try testing.expectError(if (bad.len == 33) error.TooDeep else error.Syntax, tokens.copyValue(&out));
    }
}
