//! Which requests of a model are captured, and how much of the disk they may take: ROOT/captures/NAME/rules.json.
//!
//!     {"always":true} | {"every":N} | {"rate":F}      at most one of these
//!     "below":{"output":O,"value":V}                  the least element of the output is less than V
//!     "above":{"output":O,"value":V}                  the greatest element of the output is more than V
//!     "nan":true                                      some output holds NaN, which neither of the two sees
//!     "max_bytes":N, "max_age_s":N                    limits; the oldest captures go first
//!     {"off":true}                                    nothing, not even what a request asks for
//!
//! Any condition that holds is enough. Without any, only those requests are captured that ask for it.

const std = @import("std");
const Allocator = std.mem.Allocator;
const document = @import("document.zig");
const Document = document.Document;
const model_info = @import("model_info.zig");
const Tensor = model_info.Tensor;
const Reason = @import("capture_format.zig").Reason;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

pub const file_name = "rules.json";
pub const max_file_bytes = 4 << 10;
pub const default_max_bytes = 64 << 20;
const least_max_bytes = 64 << 10;
const greatest_max_bytes = 1 << 40;
const greatest_age_s = 10 * 366 * 24 * 60 * 60;
const greatest_every = 1 << 31;

const fields = [_][]const u8{ "always", "every", "rate", "below", "above", "nan", "max_bytes", "max_age_s", "off" };

pub const Threshold = struct {
    output_buffer: [model_info.max_tensor_name]u8 = undefined,
    output_len: usize,
    value: f64,

    pub fn output(self: *const Threshold) []const u8 {
        return self.output_buffer[0..self.output_len];
    }
};

pub const Sampling = union(enum) {
    none,
    always,
    every: u64,
    /// In parts of 2^32.
    rate: u64,
};

/// Numbers that decide about a request that no threshold has chosen.
pub const Chance = struct {
    /// How many requests came before this one.
    index: u64,
    /// Any of 2^32, each as likely.
    random: u32,
};

pub const Rules = struct {
    off: bool = false,
    sampling: Sampling = .none,
    below: ?Threshold = null,
    above: ?Threshold = null,
    nan: bool = false,
    max_bytes: u64 = default_max_bytes,
    max_age_s: ?u64 = null,

    /// Whatever is wrong is said in one line.
    pub fn parse(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!Rules {
        const doc: Document = .{ .refusal = refusal, .check = .usage, .title = "rules of capture" };
        if (bytes.len > max_file_bytes) return doc.malformed("longer than {d} bytes", .{max_file_bytes});
        const root = try doc.parse(arena, bytes);
        for (root.keys()) |key| {
            for (fields) |field| {
                if (std.mem.eql(u8, key, field)) break;
            } else return doc.malformed("no field \"{s}\"; there are always, every, rate, below, above, nan, max_bytes, max_age_s, off", .{key});
        }
        var self: Rules = .{
            .off = try flag(doc, root, "off"),
            .sampling = try sampling(doc, root),
            .below = try threshold(doc, root, "below"),
            .above = try threshold(doc, root, "above"),
            .nan = try flag(doc, root, "nan"),
        };
        if (self.off and root.count() > 1) return doc.malformed("off goes with nothing else", .{});
        if (root.get("max_bytes") != null) {
            self.max_bytes = try doc.integer(root, "max_bytes", greatest_max_bytes);
            if (self.max_bytes < least_max_bytes) return doc.malformed("max_bytes is less than {d}", .{least_max_bytes});
        }
        if (root.get("max_age_s") != null) {
            self.max_age_s = try doc.integer(root, "max_age_s", greatest_age_s);
            if (self.max_age_s.? == 0) return doc.malformed("max_age_s is 0", .{});
        }
        return self;
    }

    /// The name of an output that a threshold is about and that the model does not have.
    pub fn unknownOutput(self: *const Rules, outputs: []const Tensor) ?[]const u8 {
        inline for (.{ &self.below, &self.above }) |it| {
            if (it.*) |*known| if (find(outputs, known.output()) == null) return known.output();
        }
        return null;
    }

    /// Why this request is captured, or null. The outputs lie in `memory` as they do in shared memory.
    pub fn reason(self: *const Rules, outputs: []const Tensor, memory: []const u8, chance: Chance) ?Reason {
        if (self.off) return null;
        if (self.below) |*it| if (extent(outputs, memory, it.output())) |found| if (found.least < it.value) return .below;
        if (self.above) |*it| if (extent(outputs, memory, it.output())) |found| if (found.greatest > it.value) return .above;
        if (self.nan and holdsNan(outputs, memory)) return .nan;
        return switch (self.sampling) {
            .none => null,
            .always => .always,
            .every => |count| if (chance.index % count == 0) .every else null,
            .rate => |parts| if (chance.random < parts) .rate else null,
        };
    }
};

fn flag(doc: Document, root: document.Object, name: []const u8) error{Refused}!bool {
    const value = root.get(name) orelse return false;
    if (value != .bool or !value.bool) return doc.malformed("{s} is not true", .{name});
    return true;
}

fn sampling(doc: Document, root: document.Object) error{Refused}!Sampling {
    var found: Sampling = .none;
    if (try flag(doc, root, "always")) found = .always;
    if (root.get("every") != null) {
        if (found != .none) return doc.malformed("more than one of always, every, rate", .{});
        const count = try doc.integer(root, "every", greatest_every);
        if (count == 0) return doc.malformed("every is 0", .{});
        found = .{ .every = count };
    }
    if (root.get("rate") != null) {
        if (found != .none) return doc.malformed("more than one of always, every, rate", .{});
        const parts = try doc.positive(root, "rate", 1) * (1 << 32);
        found = .{ .rate = @max(1, @as(u64, @intFromFloat(parts))) };
    }
    return found;
}

fn threshold(doc: Document, root: document.Object, name: []const u8) error{Refused}!?Threshold {
    const value = root.get(name) orelse return null;
    const object = try doc.asObject(value, name);
    try doc.onlyFields(object, &.{ "output", "value" });
    const output = try doc.string(object, "output", model_info.max_tensor_name);
    var it: Threshold = .{ .output_len = output.len, .value = switch (object.get("value").?) {
        .integer => |i| @floatFromInt(i),
        .float => |f| f,
        else => return doc.malformed("value of {s} is not a number", .{name}),
    } };
    @memcpy(it.output_buffer[0..output.len], output);
    return it;
}

fn find(outputs: []const Tensor, name: []const u8) ?*const Tensor {
    for (outputs) |*output| if (std.mem.eql(u8, output.name, name)) return output;
    return null;
}

const Extent = struct { least: f64, greatest: f64 };

/// Without NaN; infinities the wrong way round, which no threshold meets, where nothing else is there.
fn extent(outputs: []const Tensor, memory: []const u8, name: []const u8) ?Extent {
    const output = find(outputs, name) orelse return null;
    const bytes = memory[output.offset..][0..output.nbytes];
    return switch (output.dtype) {
        .bool, .uint8 => extentOf(u8, bytes),
        .int8 => extentOf(i8, bytes),
        .int16 => extentOf(i16, bytes),
        .uint16 => extentOf(u16, bytes),
        .int32 => extentOf(i32, bytes),
        .uint32 => extentOf(u32, bytes),
        .int64 => extentOf(i64, bytes),
        .uint64 => extentOf(u64, bytes),
        .float16 => extentOf(f16, bytes),
        .float32 => extentOf(f32, bytes),
        .float64 => extentOf(f64, bytes),
    };
}

fn extentOf(comptime T: type, bytes: []const u8) Extent {
    var found: Extent = .{ .least = std.math.inf(f64), .greatest = -std.math.inf(f64) };
    for (std.mem.bytesAsSlice(T, bytes)) |element| {
        const value: f64 = if (@typeInfo(T) == .int) @floatFromInt(element) else element;
        if (value < found.least) found.least = value; // false for NaN
        if (value > found.greatest) found.greatest = value;
    }
    return found;
}

fn holdsNan(outputs: []const Tensor, memory: []const u8) bool {
    for (outputs) |*output| {
        const bytes = memory[output.offset..][0..output.nbytes];
        const holds = switch (output.dtype) {
            .float16 => anyNan(f16, bytes),
            .float32 => anyNan(f32, bytes),
            .float64 => anyNan(f64, bytes),
            else => false,
        };
        if (holds) return true;
    }
    return false;
}

fn anyNan(comptime T: type, bytes: []const u8) bool {
    for (std.mem.bytesAsSlice(T, bytes)) |element| if (element != element) return true;
    return false;
}

const testing = std.testing;

fn testParse(text: []const u8, refusal: *Refusal) refusals.Error!Rules {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    return Rules.parse(arena.allocator(), refusal, text);
}

test "rules are read, and what is none is refused in one line" {
    var refusal: Refusal = .{};
    const plain = try testParse("{}", &refusal);
    try testing.expectEqual(.none, plain.sampling);
    try testing.expectEqual(64 << 20, plain.max_bytes);
    try testing.expect((try testParse("{\"off\":true}", &refusal)).off);
    const full = try testParse("{\"every\":10,\"below\":{\"output\":\"y\",\"value\":0.5},\"above\":{\"value\":7,\"output\":\"z\"},\"nan\":true,\"max_bytes\":65536,\"max_age_s\":60}", &refusal);
    try testing.expectEqual(10, full.sampling.every);
    try testing.expectEqualStrings("y", full.below.?.output());
    try testing.expectEqual(7, full.above.?.value);
    try testing.expectEqual(.{ 65536, 60 }, .{ full.max_bytes, full.max_age_s.? });
    try testing.expectEqual(1 << 32, (try testParse("{\"rate\":1}", &refusal)).sampling.rate);
    try testing.expectEqual(1, (try testParse("{\"rate\":1e-30}", &refusal)).sampling.rate);
    for ([_][2][]const u8{
        .{ "[]", "the document is not an object" },
        .{ "{", "not well-formed JSON (UnexpectedEndOfInput)" },
        .{ "{\"evry\":1}", "no field \"evry\"; there are always, every, rate, below, above, nan, max_bytes, max_age_s, off" },
        .{ "{\"every\":0}", "every is 0" },
        .{ "{\"every\":1.5}", "every is not an integer" },
        .{ "{\"rate\":0}", "rate is not within 0 to 1" },
        .{ "{\"rate\":1.01}", "rate is not within 0 to 1" },
        .{ "{\"every\":2,\"rate\":0.5}", "more than one of always, every, rate" },
        .{ "{\"always\":false}", "always is not true" },
        .{ "{\"off\":true,\"every\":2}", "off goes with nothing else" },
        .{ "{\"below\":{\"output\":\"y\"}}", "value is missing" },
        .{ "{\"below\":{\"output\":\"y\",\"value\":null}}", "value of below is not a number" },
        .{ "{\"above\":{\"output\":\"y\",\"value\":1,\"x\":1}}", "fields beside output, ... that do not belong there" },
        .{ "{\"max_bytes\":1}", "max_bytes is less than 65536" },
        .{ "{\"max_age_s\":0}", "max_age_s is 0" },
    }) |case| {
        try testing.expectError(error.Refused, testParse(case[0], &refusal));
        try testing.expectEqual(.usage, refusal.check);
        try testing.expectEqualStrings(case[1], refusal.reason()["rules of capture: ".len..]);
    }
}

test "any condition that holds is enough, and NaN meets no threshold" {
    const nan = std.math.nan(f32);
    const outputs = [_]Tensor{
        .{ .name = "y", .dtype = .float32, .shape = &.{3}, .nbytes = 12, .offset = 64 },
        .{ .name = "label", .dtype = .int64, .shape = &.{}, .nbytes = 8, .offset = 128 },
    };
    var refusal: Refusal = .{};
    const rules = try testParse("{\"every\":3,\"below\":{\"output\":\"y\",\"value\":0.5},\"above\":{\"output\":\"label\",\"value\":7}}", &refusal);
    const watching = try testParse("{\"nan\":true}", &refusal);
    for ([_]struct { [3]f32, i64, ?Reason }{
        .{ .{ 1, 0.5, 1 }, 7, null },
        .{ .{ 1, 0.4, 1 }, 7, .below },
        .{ .{ 1, 0.4, 1 }, 8, .below },
        .{ .{ nan, 1, 1 }, 8, .above },
        .{ .{ nan, nan, nan }, -1, null },
    }) |case| {
        var memory: [192]u8 align(64) = @splat(0);
        @memcpy(memory[64..76], std.mem.asBytes(&case[0]));
        @memcpy(memory[128..136], std.mem.asBytes(&case[1]));
        try testing.expectEqual(case[2], rules.reason(&outputs, &memory, .{ .index = 1, .random = 0 }));
        try testing.expectEqual(case[0][0] != case[0][0], watching.reason(&outputs, &memory, .{ .index = 0, .random = 0 }) == .nan);
        if (case[2] == null) try testing.expectEqual(.every, rules.reason(&outputs, &memory, .{ .index = 6, .random = 0 }).?);
    }
    try testing.expectEqual(null, rules.unknownOutput(&outputs));
    try testing.expectEqualStrings("label", rules.unknownOutput(outputs[0..1]).?);
}

test "a rate is met as often as it says" {
    const rules: Rules = .{ .sampling = .{ .rate = 1 << 30 } };
    try testing.expectEqual(.rate, rules.reason(&.{}, "", .{ .index = 1, .random = (1 << 30) - 1 }).?);
    try testing.expectEqual(null, rules.reason(&.{}, "", .{ .index = 0, .random = 1 << 30 }));
    const always: Rules = .{ .sampling = .{ .rate = 1 << 32 } };
    try testing.expectEqual(.rate, always.reason(&.{}, "", .{ .index = 0, .random = std.math.maxInt(u32) }).?);
}
