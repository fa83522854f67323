//! Tests of tensor_json.zig and json_tokens.zig.

const std = @import("std");
const Io = std.Io;
const testing = std.testing;
const model_info = @import("model_info.zig");
const DType = model_info.DType;
const Tensor = model_info.Tensor;
const Problem = @import("problem.zig").Problem;
const tensor_json = @import("tensor_json.zig");
const Tokens = @import("json_tokens.zig").Tokens;

fn read(dtype: DType, shape: []const i64, json: []const u8, into: []u8) !void {
    const tensor: Tensor = .{ .name = "x", .dtype = dtype, .shape = shape, .nbytes = into.len, .offset = 0 };
    var reader: Io.Reader = .fixed(json);
    var tokens: Tokens = undefined;
    tokens.init(&reader);
    var problem: Problem = .{};
    return tensor_json.read(&tokens, &tensor, into, &problem);
}

fn expectRead(comptime T: type, dtype: DType, json: []const u8, expected: []const T) !void {
    var values: [8]T = undefined;
    const shape = [_]i64{@intCast(expected.len)};
    try read(dtype, &shape, json, std.mem.sliceAsBytes(values[0..expected.len]));
    try testing.expectEqualSlices(T, expected, values[0..expected.len]);
}

fn expectNone(dtype: DType, json: []const u8) !void {
    var buffer: [16]u8 = undefined;
    const result = read(dtype, &.{1}, json, buffer[0..dtype.size()]);
    if (result) |_| {
        std.debug.print("{t} took {s}\n", .{ dtype, json });
        return error.TestUnexpectedResult;
    } else |err| try testing.expect(err == error.Problem or err == error.Syntax);
}

test "integers are taken over their whole range and not beyond" {
    try expectRead(i8, .int8, "[-128,127,0,-0]", &.{ -128, 127, 0, 0 });
    try expectRead(u8, .uint8, "[0,255]", &.{ 0, 255 });
    try expectRead(i16, .int16, "[-32768,32767]", &.{ -32768, 32767 });
    try expectRead(u16, .uint16, "[65535]", &.{65535});
    try expectRead(i32, .int32, "[-2147483648,2147483647]", &.{ -2147483648, 2147483647 });
    try expectRead(u32, .uint32, "[4294967295]", &.{4294967295});
    try expectRead(i64, .int64, "[-9223372036854775808,9223372036854775807]", &.{ std.math.minInt(i64), std.math.maxInt(i64) });
    try expectRead(u64, .uint64, "[18446744073709551615]", &.{std.math.maxInt(u64)});
    for ([_]struct { DType, []const u8 }{
        .{ .int8, "[128]" },                  .{ .int8, "[-129]" },                   .{ .uint8, "[256]" },   .{ .uint8, "[-1]" },
        .{ .int64, "[9223372036854775808]" }, .{ .uint64, "[18446744073709551616]" }, .{ .int32, "[1.0]" },   .{ .int32, "[1e2]" },
        .{ .int32, "[null]" },                .{ .int32, "[true]" },                  .{ .int32, "[\"1\"]" },
    }) |case| try expectNone(case[0], case[1]);
}

test "booleans are true, false, 1 and 0" {
    try expectRead(bool, .bool, "[true,false,1,0]", &.{ true, false, true, false });
    for ([_][]const u8{ "[2]", "[null]", "[1.0]", "[\"true\"]", "[-0]" }) |json| try expectNone(.bool, json);
}

test "floats are read to the last bit, and what overflows is refused" {
    try expectRead(f32, .float32, "[0.1,-3.4028234663852886e38,1e-45,1,1E+2,16777217]", &.{ 0.1, -3.4028234663852886e38, 1e-45, 1, 100, 16777216 });
    try expectRead(f64, .float64, "[0.1,1.7976931348623157e308,5e-324,0.1000000000000000055511151231257827021181583404541015625]", &.{ 0.1, 1.7976931348623157e308, 5e-324, 0.1 });
    try expectRead(f16, .float16, "[65504,0.1,-6e-8]", &.{ 65504, 0.1, -6e-8 });
    var nan: f32 = 0;
    try read(.float32, &.{1}, "[null]", std.mem.asBytes(&nan));
    try testing.expect(std.math.isNan(nan));
    for ([_][]const u8{ "[1e39]", "[-3.5e38]", "[NaN]", "[Infinity]", "[true]", "[\"1\"]", "[{}]", "[.5]", "[1.]", "[0x10]", "[1_0]" }) |json| try expectNone(.float32, json);
    try expectNone(.float64, "[1e400]");
    try expectNone(.float16, "[65520]");
}

test "data is flat or nested as the shape is, and of the right count" {
    var values: [6]i32 = undefined;
    const into = std.mem.sliceAsBytes(&values);
    const shape = [_]i64{ 1, 2, 3 };
    for ([_][]const u8{ "[1,2,3,4,5,6]", "[[[1,2,3],[4,5,6]]]", " [ [ [1 , 2,3],\n[4,5,6] ] ] " }) |json| {
        @memset(into, 0);
        try read(.int32, &shape, json, into);
        try testing.expectEqualSlices(i32, &.{ 1, 2, 3, 4, 5, 6 }, &values);
    }
    for ([_][]const u8{
        "[]",                     "[1,2,3,4,5]",              "[1,2,3,4,5,6,7]",       "[[1,2,3],[4,5,6]]", "[[[1,2],[3,4],[5,6]]]",
        "[[[1,2,3,4],[5,6]]]",    "[[[1,2,3]],[[4,5,6]]]",    "[[[[1,2,3],[4,5,6]]]]", "[1,[2,3],4,5,6]",   "[[1],2,3,4,5,6]",
        "[[[1,2,3],[4,5,6]],[]]", "1",                        "{}",                    "\"x\"",             "null",
        "[[],[[1,2,3],[4,5,6]]]", "[[[1,2,3],[4,5,6]],[[]]]", "[1}",
    }) |json| try testing.expectError(error.Problem, read(.int32, &shape, json, into));
    for ([_][]const u8{ "", "[", "[1,2", "[1,,2]", "[1 2]", "[1,2,3,4,5,6", "]" }) |json| try testing.expectError(error.Syntax, read(.int32, &shape, json, into));
    var scalar: f32 = 0;
    try read(.float32, &.{}, "[2.5]", std.mem.asBytes(&scalar));
    try testing.expectEqual(2.5, scalar);
    try testing.expectError(error.Problem, read(.float32, &.{}, "2.5", std.mem.asBytes(&scalar)));
    try testing.expectError(error.Problem, read(.float32, &.{}, "[[2.5]]", std.mem.asBytes(&scalar)));
}

test "a number that never ends is refused, wherever the input is split" {
    var json: [3000]u8 = @splat('1');
    json[0] = '[';
    var value: f64 = 0;
    const tensor: Tensor = .{ .name = "x", .dtype = .float64, .shape = &.{1}, .nbytes = 8, .offset = 0 };
    var backing: Io.Reader = .fixed(&json);
    var small: [64]u8 = undefined;
    var limited = backing.limited(.unlimited, &small);
    var tokens: Tokens = undefined;
    tokens.init(&limited.interface);
    var problem: Problem = .{};
    try testing.expectError(error.TooLong, tensor_json.read(&tokens, &tensor, std.mem.asBytes(&value), &problem));
}

fn expectWritten(comptime T: type, dtype: DType, values: []const T, expected: []const u8) !void {
    var buffer: [512]u8 = undefined;
    var writer: Io.Writer = .fixed(&buffer);
    try tensor_json.write(&writer, dtype, std.mem.sliceAsBytes(values));
    try testing.expectEqualStrings(expected, writer.buffered());
}

test "values are written as JSON" {
    try expectWritten(bool, .bool, &.{ true, false }, "[true,false]");
    try expectWritten(i8, .int8, &.{ -128, 127 }, "[-128,127]");
    try expectWritten(u64, .uint64, &.{std.math.maxInt(u64)}, "[18446744073709551615]");
    try expectWritten(f32, .float32, &.{ 0, -0.0, 1, 0.1, 1e-5, 1e-6, 1e16, 123456.79, 3.4028235e38 }, "[0.0,-0.0,1.0,0.1,0.00001,1e-6,1e16,123456.79,3.4028235e38]");
    try expectWritten(f32, .float32, &.{ std.math.nan(f32), std.math.inf(f32), -std.math.inf(f32) }, "[null,null,null]");
    try expectWritten(f16, .float16, &.{ 0.1, 65504 }, "[0.099975586,65504.0]");
    try expectWritten(f64, .float64, &.{ 0.1, 5e-324, 1.7976931348623157e308 }, "[0.1,5e-324,1.7976931348623157e308]");
    try expectWritten(f32, .float32, &.{}, "[]");
}

fn expectRoundTrip(comptime T: type, dtype: DType, value: T) !void {
    var buffer: [64]u8 = undefined;
    var writer: Io.Writer = .fixed(&buffer);
    try tensor_json.write(&writer, dtype, std.mem.asBytes(&value));
    var back: T = undefined;
    try read(dtype, &.{1}, writer.buffered(), std.mem.asBytes(&back));
    const Bits = @Int(.unsigned, @bitSizeOf(T));
    try testing.expectEqual(@as(Bits, @bitCast(value)), @as(Bits, @bitCast(back)));
}

test "every half and many floats and doubles survive the way through JSON" {
    var bits: u16 = 0;
    while (true) {
        const value: f16 = @bitCast(bits);
        if (std.math.isFinite(value)) try expectRoundTrip(f16, .float16, value);
        bits +%= 1;
        if (bits == 0) break;
    }
    var random: std.Random.DefaultPrng = .init(1);
    for (0..20_000) |_| {
        const single: f32 = @bitCast(random.random().int(u32));
        if (std.math.isFinite(single)) try expectRoundTrip(f32, .float32, single);
        const double: f64 = @bitCast(random.random().int(u64));
        if (std.math.isFinite(double)) try expectRoundTrip(f64, .float64, double);
    }
}
