//! How the server is to behave: ROOT/serve.json, read once when it starts, and options of the same names.
//!
//!     {"queue":16,"queue_ms":10000,"run_ms":60000,"failures":5}
//!
//! Every key may be left out, and so may the file. What the command line gives stands, whatever the file
//! says. A new key is a new field of Settings, and nothing else.

const std = @import("std");
const Io = std.Io;
const document = @import("document.zig");
const Document = document.Document;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

const file_name = "serve.json";
const max_file_bytes = 16 << 10;

pub const Settings = struct {
    /// Requests that may wait for a model while one runs.
    queue: Number(16, 0, 1024) = .{},
    /// How long each of them may wait.
    queue_ms: Number(10_000, 1, 3_600_000) = .{},
    /// How long a run may take before its worker is killed.
    run_ms: Number(60_000, 1, 3_600_000) = .{},
    /// Failures in a row after which a model goes back to the version before; 0 for never.
    failures: Number(5, 0, 1000) = .{},
    /// Whom the server becomes, see privileges.zig.
    user: Word = .{},

    /// Takes `option`, "--queue-ms" for queue_ms; false where it is the name of no setting.
    pub fn take(self: *Settings, refusal: *Refusal, option: []const u8, word: []const u8) error{Refused}!bool {
        inline for (comptime std.meta.fieldNames(Settings)) |name| {
            if (std.mem.eql(u8, option, comptime optionName(name))) {
                try @field(self, name).takeWord(refusal, option, word);
                return true;
            }
        }
        return false;
    }

    /// The file fills in what the command line left open. It may be absent, but not wrong.
    pub fn read(self: *Settings, io: Io, refusal: *Refusal, root: Io.Dir) refusals.Error!void {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        const bytes = root.readFileAlloc(io, file_name, arena.allocator(), .limited(max_file_bytes)) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.FileNotFound => return,
            else => return refusal.because(.state, "cannot read " ++ file_name ++ ": {t}", .{err}),
        };
        try self.parse(arena.allocator(), refusal, bytes);
    }

    fn parse(self: *Settings, arena: std.mem.Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!void {
        const doc: Document = .{ .refusal = refusal, .check = .state, .title = file_name };
        const root = try doc.parse(arena, bytes);
        for (root.keys()) |key| {
            inline for (comptime std.meta.fieldNames(Settings)) |name| {
                if (std.mem.eql(u8, key, name)) {
                    try @field(self, name).takeField(doc, root, name);
                    break;
                }
            } else return doc.malformed("no setting is called {s}; there are " ++ keys, .{key});
        }
    }

    pub const count = std.meta.fieldNames(Settings).len;
    const keys = listed(false);
    /// In words, for who gave another one.
    pub const options = listed(true);
};

fn listed(comptime as_options: bool) []const u8 {
    var list: []const u8 = "";
    for (std.meta.fieldNames(Settings), 0..) |name, index| {
        list = list ++ (if (index > 0) ", " else "") ++ (if (as_options) optionName(name) ++ " " ++ @FieldType(Settings, name).argument else name);
    }
    return list;
}

/// An option is called as the key is, with hyphens.
fn optionName(comptime key: []const u8) []const u8 {
    comptime var name = ("--" ++ key)[0 .. 2 + key.len].*;
    inline for (&name) |*byte| if (byte.* == '_') {
        byte.* = '-';
    };
    const done = name;
    return &done;
}

/// A whole number within `least` to `most`.
fn Number(comptime default: u32, comptime least: u32, comptime most: u32) type {
    return struct {
        value: u32 = default,
        /// By the command line.
        given: bool = false,

        const Self = @This();
        const argument = "N";

        fn takeWord(self: *Self, refusal: *Refusal, option: []const u8, word: []const u8) error{Refused}!void {
            const number = std.fmt.parseInt(u32, word, 10) catch null;
            if (number == null or number.? < least or number.? > most) {
                return refusal.because(.usage, "{s} takes a number within {d} to {d}, not {s}", .{ option, least, most, word });
            }
            self.* = .{ .value = number.?, .given = true };
        }

        fn takeField(self: *Self, doc: Document, object: document.Object, name: []const u8) error{Refused}!void {
            const value = try doc.get(object, name);
            if (value != .integer or value.integer < least or value.integer > most) {
                return doc.malformed("{s} is not a number within {d} to {d}", .{ name, least, most });
            }
            if (!self.given) self.value = @intCast(value.integer);
        }
    };
}

/// What is not empty and has `max_bytes` at most. Not to be moved while value() is in use.
const Word = struct {
    buffer: [max_bytes]u8 = undefined,
    len: usize = 0,
    given: bool = false,

    const argument = "NAME";
    const max_bytes = 64;

    pub fn value(self: *const Word) ?[]const u8 {
        return if (self.len > 0) self.buffer[0..self.len] else null;
    }

    fn takeWord(self: *Word, refusal: *Refusal, option: []const u8, word: []const u8) error{Refused}!void {
        if (word.len == 0 or word.len > max_bytes) return refusal.because(.usage, "{s} takes 1 to {d} bytes", .{ option, max_bytes });
        self.set(word);
        self.given = true;
    }

    fn takeField(self: *Word, doc: Document, object: document.Object, name: []const u8) error{Refused}!void {
        const text = try doc.string(object, name, max_bytes);
        if (!self.given) self.set(text);
    }

    fn set(self: *Word, text: []const u8) void {
        @memcpy(self.buffer[0..text.len], text);
        self.len = text.len;
    }
};

const testing = std.testing;

fn testParse(into: *Settings, refusal: *Refusal, bytes: []const u8) refusals.Error!void {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    try into.parse(arena.allocator(), refusal, bytes);
}

test "what the file leaves out keeps its default, and the command line comes before the file" {
    var refusal: Refusal = .{};
    var settings: Settings = .{};
    try testing.expect(try settings.take(&refusal, "--queue-ms", "250"));
    try testing.expect(!try settings.take(&refusal, "--queue_ms", "250"));
    try testParse(&settings, &refusal, "{\"queue\":0,\"queue_ms\":3,\"run_ms\":3600000}");
    try testing.expectEqual(0, settings.queue.value);
    try testing.expectEqual(250, settings.queue_ms.value);
    try testing.expectEqual(3_600_000, settings.run_ms.value);
    try testing.expectEqual(5, settings.failures.value);
    try testParse(&settings, &refusal, "{}");
    try testing.expectEqual(null, settings.user.value());
    try testParse(&settings, &refusal, "{\"user\":\"edge\"}");
    try testing.expectEqualStrings("edge", settings.user.value().?);
    try testing.expect(try settings.take(&refusal, "--user", "1000"));
    try testParse(&settings, &refusal, "{\"user\":\"edge\"}");
    try testing.expectEqualStrings("1000", settings.user.value().?);
}

test "a wrong setting is refused with its key and its range" {
    var refusal: Refusal = .{};
    var settings: Settings = .{};
    for ([_][2][]const u8{
        .{ "{\"queue\":1025}", "serve.json: queue is not a number within 0 to 1024" },
        .{ "{\"queue\":-1}", "serve.json: queue is not a number within 0 to 1024" },
        .{ "{\"run_ms\":0}", "serve.json: run_ms is not a number within 1 to 3600000" },
        .{ "{\"failures\":\"5\"}", "serve.json: failures is not a number within 0 to 1000" },
        .{ "{\"failures\":1.5}", "serve.json: failures is not a number within 0 to 1000" },
        .{ "{\"failures\":99999999999999999999}", "serve.json: failures is not a number within 0 to 1000" },
    }) |case| {
        try testing.expectError(error.Refused, testParse(&settings, &refusal, case[0]));
        try testing.expectEqualStrings(case[1], refusal.reason());
    }
    try testing.expectError(error.Refused, testParse(&settings, &refusal, "{\"queues\":1}"));
    try testing.expect(std.mem.startsWith(u8, refusal.reason(), "serve.json: no setting is called queues; there are queue, queue_ms"));
    for ([_][]const u8{ "", "[]", "{", "{\"queue\":1,\"queue\":1}", "{\"queue\":null}", "{\"user\":1000}", "{\"user\":\"\"}", "{\"user\":\"" ++ &@as([65]u8, @splat('u')) ++ "\"}" }) |bad| {
        try testing.expectError(error.Refused, testParse(&settings, &refusal, bad));
        try testing.expectEqual(.state, refusal.check);
    }
    try testing.expectError(error.Refused, settings.take(&refusal, "--failures", "1001"));
    try testing.expectEqualStrings("--failures takes a number within 0 to 1000, not 1001", refusal.reason());
    for ([_][]const u8{ "", "-1", "1.5", "0x5", " 5", "five", "4294967296" }) |bad| {
        try testing.expectError(error.Refused, settings.take(&refusal, "--failures", bad));
        try testing.expectEqual(.usage, refusal.check);
    }
}
