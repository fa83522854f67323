//! JSON from outside: bounded before it is parsed, and read field by field without trust.
//!
//! A document is at most `max_bytes` long, at most `max_depth` deep and holds at most `max_values`
//! values, so that parsing one takes a few megabytes at most whatever it says. Duplicate keys and
//! text that is not UTF-8 are refused.

const std = @import("std");
const Allocator = std.mem.Allocator;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Check = refusals.Check;

pub const max_bytes = 4 << 20;
pub const max_depth = 32;
pub const max_values = 1 << 16;

pub const Object = std.json.ObjectMap;
pub const Value = std.json.Value;

/// One document under examination: what it is called and which check it belongs to.
pub const Document = struct {
    refusal: *Refusal,
    check: Check,
    /// In words, for the reason: "model.json", "the statement".
    title: []const u8,

    pub fn malformed(self: Document, comptime format: []const u8, args: anytype) error{Refused} {
        return self.refusal.because(self.check, "{s}: " ++ format, .{self.title} ++ args);
    }

    /// The document's outermost object. What it points to lives in `arena` or in `bytes`.
    pub fn parse(self: Document, arena: Allocator, bytes: []const u8) refusals.Error!Object {
        if (bytes.len > max_bytes) return self.malformed("longer than {d} bytes", .{max_bytes});
        if (!withinBounds(bytes)) return self.malformed("nested too deep or too many values", .{});
        const value = std.json.parseFromSliceLeaky(Value, arena, bytes, .{}) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => return self.malformed("not well-formed JSON ({t})", .{err}),
        };
        return self.asObject(value, "the document");
    }

    pub fn asObject(self: Document, value: Value, name: []const u8) error{Refused}!Object {
        if (value != .object) return self.malformed("{s} is not an object", .{name});
        return value.object;
    }

    /// The field must be there.
    pub fn get(self: Document, object: Object, name: []const u8) error{Refused}!Value {
        return object.get(name) orelse self.malformed("{s} is missing", .{name});
    }

    /// The object has these fields and no others.
    pub fn onlyFields(self: Document, object: Object, names: []const []const u8) error{Refused}!void {
        for (names) |name| _ = try self.get(object, name);
        if (object.count() != names.len) return self.malformed("fields beside {s}, ... that do not belong there", .{names[0]});
    }

    pub fn objectField(self: Document, object: Object, name: []const u8) error{Refused}!Object {
        return self.asObject(try self.get(object, name), name);
    }

    pub fn string(self: Document, object: Object, name: []const u8, max_len: usize) error{Refused}![]const u8 {
        const value = try self.get(object, name);
        if (value != .string) return self.malformed("{s} is not a string", .{name});
        if (value.string.len == 0 or value.string.len > max_len) {
            return self.malformed("{s} has not 1 to {d} bytes", .{ name, max_len });
        }
        return value.string;
    }

    /// The field is the string `expected` and nothing else.
    pub fn exactly(self: Document, object: Object, name: []const u8, expected: []const u8) error{Refused}!void {
        const found = try self.string(object, name, 256);
        if (!std.mem.eql(u8, found, expected)) return self.malformed("{s} is not {s}", .{ name, expected });
    }

    pub fn array(self: Document, object: Object, name: []const u8, max_len: usize) error{Refused}![]const Value {
        const value = try self.get(object, name);
        if (value != .array) return self.malformed("{s} is not an array", .{name});
        if (value.array.items.len > max_len) return self.malformed("{s} has more than {d} items", .{ name, max_len });
        return value.array.items;
    }

    pub fn integer(self: Document, object: Object, name: []const u8, max: u64) error{Refused}!u64 {
        const value = try self.get(object, name);
        if (value != .integer) return self.malformed("{s} is not an integer", .{name});
        if (value.integer < 0 or value.integer > max) return self.malformed("{s} is not within 0 to {d}", .{ name, max });
        return @intCast(value.integer);
    }

    pub fn finite(self: Document, value: Value, name: []const u8) error{Refused}!f64 {
        const number: f64 = switch (value) {
            .integer => |i| @floatFromInt(i),
            .float => |f| f,
            else => return self.malformed("{s} is not a number", .{name}),
        };
        if (!std.math.isFinite(number)) return self.malformed("{s} is too large", .{name});
        return number;
    }

    /// A finite number within (0, max].
    pub fn positive(self: Document, object: Object, name: []const u8, max: f64) error{Refused}!f64 {
        const number = try self.finite(try self.get(object, name), name);
        if (!(number > 0 and number <= max)) return self.malformed("{s} is not within 0 to {d}", .{ name, max });
        return number;
    }
};

/// Depth and number of values, by their separators; an upper bound that needs no parsing.
fn withinBounds(bytes: []const u8) bool {
    var depth: usize = 0;
    var values: usize = 1;
    var in_string = false;
    var escaped = false;
    for (bytes) |byte| {
        if (in_string) {
            if (escaped) {
                escaped = false;
            } else if (byte == '\\') {
                escaped = true;
            } else if (byte == '"') {
                in_string = false;
            }
            continue;
        }
        switch (byte) {
            '"' => in_string = true,
            '[', '{' => {
                depth += 1;
                values += 1;
            },
            ']', '}' => depth -|= 1,
            ',' => values += 1,
            else => {},
        }
        if (depth > max_depth or values > max_values) return false;
    }
    return true;
}

const testing = std.testing;

fn testParse(bytes: []const u8) refusals.Error!void {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    const doc: Document = .{ .refusal = &refusal, .check = .package, .title = "test" };
    _ = try doc.parse(arena.allocator(), bytes);
}

test "documents that are no JSON object, or too deep, or say a key twice, are refused" {
    try testParse("{\"a\":[1,2.5,\"\\u00e9\",null]}");
    for ([_][]const u8{
        "",           "{",                   "[]",             "1",           "{}x",     "{\"a\":1,\"a\":2}",
        "{\"a\":01}", "{\"a\":\"\xff\"}",    "{\"a\":NaN}",    "{\"a\":1,}",  "{'a':1}", "{\"a\":\"\n\"}",
        "{\"a\":}",   "{\"a\":\"\\ud800\"}", "\xef\xbb\xbf{}", "{\"a\":tru}", "nul",     "{\"a\":1}{",
    }) |bad| try testing.expectError(error.Refused, testParse(bad));
    const deep: [100]u8 = @splat('[');
    try testing.expectError(error.Refused, testParse(&deep));
    const many: [max_values + 1]u8 = @splat(',');
    try testing.expectError(error.Refused, testParse(&many));
}

test "fields are taken only in the type and range that is asked for" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    const doc: Document = .{ .refusal = &refusal, .check = .statement, .title = "test" };
    const object = try doc.parse(arena.allocator(), "{\"n\":-1,\"s\":\"abc\",\"f\":1e-4,\"big\":99999999999999999999}");
    try testing.expectError(error.Refused, doc.integer(object, "n", 10));
    try testing.expectError(error.Refused, doc.integer(object, "big", std.math.maxInt(u64)));
    try testing.expectError(error.Refused, doc.integer(object, "f", 10));
    try testing.expectError(error.Refused, doc.string(object, "s", 2));
    try testing.expectError(error.Refused, doc.string(object, "absent", 2));
    try testing.expectError(error.Refused, doc.positive(object, "n", 1));
    try testing.expectEqual(1e-4, try doc.positive(object, "f", 1));
    try testing.expectEqualStrings("abc", try doc.string(object, "s", 3));
    try testing.expectError(error.Refused, doc.onlyFields(object, &.{ "n", "s", "f" }));
    try doc.onlyFields(object, &.{ "n", "s", "f", "big" });
    try testing.expectEqual(Check.statement, refusal.check);
}
