//! Tests of statistics.zig.

const std = @import("std");
const testing = std.testing;
const Baseline = @import("baseline.zig").Baseline;
const DType = @import("model_info.zig").DType;
const statistics = @import("statistics.zig");
const Random = statistics.Random;
const Summary = statistics.Summary;

fn collected(dtype: DType, values: anytype, edges: []const f64) Summary {
    var random: Random = .{ .state = 7 };
    return statistics.collect(dtype, std.mem.sliceAsBytes(values), edges, 1024, &random);
}

test "moments and histogram are those of the elements" {
    const found = collected(.float64, &[_]f64{ 2, 4, 4, 4, 5, 5, 7, 9 }, &.{ 4, 5, 9 });
    try testing.expectEqual(8, found.count());
    try testing.expectEqual(5, found.mean);
    try testing.expectEqual(4, found.variance().?);
    try testing.expectEqual(2, found.min);
    try testing.expectEqual(9, found.max);
    try testing.expectEqualSlices(u64, &.{ 1, 3, 3, 1 }, found.bins[0..4]);
    try testing.expectEqual(null, (Summary{}).variance());
}

test "every type of element is taken for what it is" {
    inline for (.{
        .{ DType.bool, bool, .{ true, false, true } }, .{ DType.int8, i8, .{ 1, 0, 1 } },
        .{ DType.uint8, u8, .{ 1, 0, 1 } },            .{ DType.int16, i16, .{ 1, 0, 1 } },
        .{ DType.uint16, u16, .{ 1, 0, 1 } },          .{ DType.int32, i32, .{ 1, 0, 1 } },
        .{ DType.uint32, u32, .{ 1, 0, 1 } },          .{ DType.int64, i64, .{ 1, 0, 1 } },
        .{ DType.uint64, u64, .{ 1, 0, 1 } },          .{ DType.float16, f16, .{ 1, 0, 1 } },
        .{ DType.float32, f32, .{ 1, 0, 1 } },         .{ DType.float64, f64, .{ 1, 0, 1 } },
    }) |case| {
        const found = collected(case[0], &@as([3]case[1], case[2]), &.{1});
        try testing.expectApproxEqRel(2.0 / 3.0, found.mean, 1e-15);
        try testing.expectApproxEqRel(2.0 / 9.0, found.variance().?, 1e-15);
        try testing.expectEqualSlices(u64, &.{ 1, 2 }, found.bins[0..2]);
    }
    try testing.expectEqual(-128, collected(.int8, &[_]i8{-128}, &.{}).mean);
    try testing.expectEqual(0x1p64, collected(.uint64, &[_]u64{std.math.maxInt(u64)}, &.{}).mean);
}

test "what is no number, or infinite, spoils no moment" {
    const nan = std.math.nan(f32);
    const inf = std.math.inf(f32);
    const found = collected(.float32, &[_]f32{ nan, 1, inf, 3, -inf, nan, inf }, &.{ 0, 2 });
    try testing.expectEqual(2, found.nan);
    try testing.expectEqual(3, found.infinite);
    try testing.expectEqual(7, found.count());
    try testing.expectEqual(2, found.mean);
    try testing.expectEqual(1, found.variance().?);
    try testing.expectEqual(3, found.max);
    try testing.expectEqualSlices(u64, &.{ 1, 1, 3 }, found.bins[0..3]);
    const nothing = collected(.float32, &[_]f32{ nan, inf }, &.{});
    try testing.expectEqual(null, nothing.variance());
}

test "parts merged are the whole, also far from zero" {
    var values: [1000]f64 = undefined;
    for (&values, 0..) |*value, index| value.* = 1e9 + @as(f64, @floatFromInt((index * 7919) % 1000));
    const whole = collected(.float64, &values, &.{1e9 + 500});
    var merged: Summary = .{};
    var first: usize = 0;
    for ([_]usize{ 1, 299, 0, 700 }) |len| {
        merged.merge(&collected(.float64, values[first..][0..len], &.{1e9 + 500}));
        first += len;
    }
    for ([_]Summary{ whole, merged }) |found| {
        try testing.expectEqual(1000, found.count());
        try testing.expectApproxEqRel(1e9 + 499.5, found.mean, 1e-15);
        try testing.expectApproxEqRel(83333.25, found.variance().?, 1e-9);
        try testing.expectEqualSlices(u64, &.{ 500, 500 }, found.bins[0..2]);
    }
}

test "of a large tensor one element of each stretch is looked at, and over time every one" {
    var values: [4097]u16 = undefined;
    for (&values, 0..) |*value, index| value.* = @intCast(index);
    var random: Random = .{ .state = 1 };
    var total: Summary = .{};
    for (0..2000) |_| {
        const found = statistics.collect(.uint16, std.mem.sliceAsBytes(&values), &.{2048}, 64, &random);
        try testing.expectEqual(64, found.count());
        try testing.expect(found.bins[0] >= 31 and found.bins[0] <= 33);
        total.merge(&found);
    }
    try testing.expectEqual(0, total.min);
    try testing.expectEqual(4096, total.max);
    try testing.expectApproxEqRel(2048, total.mean, 0.001);
}

test "the index is that of the formula, with a floor under empty bins" {
    const normal: Baseline = .{
        .count = 100,
        .nan = 0,
        .infinite = 0,
        .mean = 0,
        .variance = 1,
        .min = 0,
        .max = 1,
        .edges = &.{ 0, 1 },
        .counts = &.{ 25, 50, 25 },
    };
    var now: Summary = .{ .finite = 200 };
    now.bins[0..3].* = .{ 50, 100, 50 };
    try testing.expectEqual(0, statistics.stabilityIndex(&normal, &now).?);
    now.bins[0..3].* = .{ 100, 100, 0 };
    // (0.5 - 0.25) ln 2 + (0.0001 - 0.25) ln 0.0004
    try testing.expectApproxEqRel(2.1285158932529735, statistics.stabilityIndex(&normal, &now).?, 1e-12);
    now = .{ .finite = 180, .nan = 20 };
    now.bins[0..3].* = .{ 45, 90, 45 };
    // 0.1 ln 0.9, as 0.025 + 0.05 + 0.025 are missing, and (0.1 - 0.0001) ln 1000
    try testing.expectApproxEqRel(0.7006208039360982, statistics.stabilityIndex(&normal, &now).?, 1e-12);
    try testing.expectEqual(null, statistics.stabilityIndex(&normal, &.{}));
    var bare = normal;
    bare.edges = &.{};
    try testing.expectEqual(null, statistics.stabilityIndex(&bare, &now));
}
