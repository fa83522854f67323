//! Tests of infer_request.zig.

const std = @import("std");
const Io = std.Io;
const testing = std.testing;
const infer_request = @import("infer_request.zig");
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const Infer = @import("oip.zig").Infer;
const Problem = @import("problem.zig").Problem;

const a: Tensor = .{ .name = "a", .dtype = .float32, .shape = &.{ 1, 2 }, .nbytes = 8, .offset = 0 };
const b: Tensor = .{ .name = "b\u{e9}", .dtype = .int8, .shape = &.{3}, .nbytes = 3, .offset = 64 };
const y: Tensor = .{ .name = "y", .dtype = .float32, .shape = &.{1}, .nbytes = 4, .offset = 128 };
const z: Tensor = .{ .name = "z", .dtype = .int8, .shape = &.{1}, .nbytes = 1, .offset = 192 };

fn model(inputs: []const Tensor) ModelInfo {
    return .{
        .name = "m",
        .version = "1.0.0",
        .target = "t",
        .arch = "x",
        .inputs = inputs,
        .outputs = &.{ y, z },
        .arena_bytes = 0,
        .weights_bytes = 0,
        .tolerance = 1,
        .golden_count = 1,
        .vector_bytes = 256,
        .shm_bytes = 4096,
    };
}

const one = model(&.{a});
pub const two = model(&.{ a, b });

pub const Asked = struct {
    infer: Infer = undefined,
    staging: [256]u8 = @splat(0xee),
    problem: Problem = .{},

    fn read(self: *Asked, info: *const ModelInfo, json: []const u8) infer_request.Error!void {
        var body: Io.Reader = .fixed(json);
        return self.readFrom(info, .{ .body = &body });
    }

    pub fn readFrom(self: *Asked, info: *const ModelInfo, source: infer_request.Source) infer_request.Error!void {
        return infer_request.read(&self.infer, source, info, &self.staging, testing.allocator, &self.problem);
    }

    /// The JSON and what follows it, with the body's length known and unknown.
    fn readBinary(self: *Asked, info: *const ModelInfo, json: []const u8, tensors: []const u8) infer_request.Error!void {
        const whole = std.mem.concat(testing.allocator, u8, &.{ json, tensors }) catch unreachable;
        defer testing.allocator.free(whole);
        for ([_]?u64{ whole.len, null }) |total| {
            var body: Io.Reader = .fixed(whole);
            try self.readFrom(info, .{ .body = &body, .json_bytes = json.len, .total_bytes = total });
        }
    }

    fn expectBinary(self: *Asked, info: *const ModelInfo, json: []const u8, tensors: []const u8) !void {
        self.readBinary(info, json, tensors) catch |err| {
            std.debug.print("{s}: {s}\n", .{ json, self.problem.reason() });
            return err;
        };
        try self.expectStaged(info);
    }

    fn expect(self: *Asked, info: *const ModelInfo, json: []const u8) !void {
        self.read(info, json) catch |err| {
            std.debug.print("{s}: {s}\n", .{ json, self.problem.reason() });
            return err;
        };
        try self.expectStaged(info);
    }

    pub fn expectStaged(self: *Asked, info: *const ModelInfo) !void {
        try testing.expectEqual([2]f32{ 1.5, -2 }, std.mem.bytesToValue([2]f32, self.staging[0..8]));
        if (info.inputs.len == 2) try testing.expectEqual([3]i8{ 1, 2, 3 }, std.mem.bytesToValue([3]i8, self.staging[64..67]));
        try testing.expectEqual(0xee, self.staging[67]);
    }
};

pub const a_json = "{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1.5,-2]}";
pub const b_json = "{\"name\":\"b\\u00e9\",\"shape\":[3],\"datatype\":\"INT8\",\"data\":[1,2,3]}";

pub const a_binary = "{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}";
pub const b_binary = "{\"parameters\":{\"q\":[1],\"binary_data_size\":3},\"shape\":[3],\"datatype\":\"INT8\",\"name\":\"b\\u00e9\"}";
pub const a_bytes = "\x00\x00\xc0\x3f\x00\x00\x00\xc0";
pub const b_bytes = "\x01\x02\x03";

test "fields come in any order, and unknown ones are passed by" {
    var asked: Asked = .{};
    try asked.expect(&one, "{\"inputs\":[" ++ a_json ++ "]}");
    try asked.expect(&two, "{\"inputs\":[" ++ a_json ++ "," ++ b_json ++ "]}");
    try asked.expect(&two, "{\"inputs\":[" ++ b_json ++ "," ++ a_json ++ "],\"id\":\"x\"}");
    try testing.expectEqualStrings("x", asked.infer.id.?);
    // As sorted keys come: the data first.
    const sorted = "{\"inputs\":[{\"data\":[[1.5,-2.0]],\"datatype\":\"FP32\",\"name\":\"a\",\"shape\":[1,2]}";
    try asked.expect(&one, sorted ++ "]}");
    try asked.expect(&two, sorted ++ ",{\"data\":[1,2,3],\"datatype\":\"INT8\",\"name\":\"b\\u00e9\",\"parameters\":{\"q\":[{}]},\"shape\":[3]}]}");
    try asked.expect(&one, " {\"parameters\":{\"a\":[[1,{\"b\":null}]]},\"later\":\"\\ud83d\\ude00\",\"inputs\" : [ " ++ a_json ++ " ]}\n");
}

test "outputs are chosen by name, in the order asked" {
    var asked: Asked = .{};
    try asked.expect(&one, "{\"outputs\":[{\"name\":\"z\",\"parameters\":{\"binary_data\":true}},{\"name\":\"y\"}],\"inputs\":[" ++ a_json ++ "]}");
    try testing.expectEqual(2, asked.infer.wanted_len);
    asked.staging[192] = 7;
    asked.staging[128..132].* = std.mem.toBytes(@as(f32, 0.5));
    asked.infer.id = "q\"";
    var buffer: [512]u8 = undefined;
    var writer: Io.Writer = .fixed(&buffer);
    try asked.infer.writeAnswer(&writer, &one, &asked.staging);
    try testing.expectEqualStrings("{\"model_name\":\"m\",\"model_version\":\"1.0.0\",\"id\":\"q\\\"\",\"outputs\":[" ++
        "{\"name\":\"z\",\"datatype\":\"INT8\",\"shape\":[1],\"parameters\":{\"binary_data_size\":1}},{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[0.5]}]}\x07", writer.buffered());
    const parts = asked.infer.parts(&one, &asked.staging).?;
    try testing.expectEqual(1, parts.tensor_bytes);
    try testing.expectEqual(writer.buffered().len - 1, parts.json_bytes);
}

test "a request that does not fit the model is refused with the name and what was expected" {
    for ([_]struct { []const u8, []const u8 }{
        .{ "{}", "input \"a\" (FP32 [1,2]) is missing" },
        .{ "{\"inputs\":[]}", "input \"a\" (FP32 [1,2]) is missing" },
        .{ "{\"inputs\":[" ++ b_json ++ "]}", "input \"a\" (FP32 [1,2]) is missing" },
        .{ "{\"inputs\":[" ++ a_json ++ "," ++ a_json ++ "]}", "input \"a\" is there twice" },
        .{ "{\"inputs\":[{\"name\":\"c\"}]}", "the model has no input \"c\"; the first is \"a\"" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[2,1],\"datatype\":\"FP32\",\"data\":[1,2]}]}", "input \"a\" has shape [2,1], expected [1,2]" },
        .{ "{\"inputs\":[{\"data\":[1,2],\"name\":\"a\",\"shape\":[2],\"datatype\":\"FP32\"}]}", "input \"a\" has shape [2], expected [1,2]" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP64\",\"data\":[1,2]}]}", "input \"a\" has datatype FP64, expected FP32" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1]}]}", "input \"a\": data has fewer than the 2 elements of its shape" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2,3]}]}", "input \"a\": data has more than the 2 elements of its shape" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,\"2\"]}]}", "input \"a\": data is not an array of numbers" },
        .{ "{\"inputs\":[{\"name\":\"b\\u00e9\",\"shape\":[3],\"datatype\":\"INT8\",\"data\":[1,2,300]}]}", "input \"b\u{e9}\": element 2 is no INT8" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"datatype\":\"FP32\",\"data\":[1,2]}]}", "input \"a\" has no shape" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"data\":[1,2]}]}", "input \"a\" has no datatype" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\"}]}", "input \"a\" has no data" },
        .{ "{\"inputs\":[" ++ a_binary ++ "]}", "input \"a\": binary data needs the header Inference-Header-Content-Length" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"parameters\":{\"binary_data_size\":-1}}]}", "binary_data_size is not a number of bytes" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"parameters\":{\"binary_data_size\":99999999999999999999}}]}", "binary_data_size is not a number of bytes" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"parameters\":{\"binary_data_size\":8,\"binary_data_size\":8}}]}", "\"binary_data_size\" is there twice" },
        .{ "{\"inputs\":[" ++ a_binary[0 .. a_binary.len - 1] ++ ",\"data\":[1,2]}]}", "input \"a\" has its data twice" },
        .{ "{\"parameters\":{\"binary_data_output\":1}}", "binary_data_output is not true or false" },
        .{ "{\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":\"yes\"}}]}", "binary_data is not true or false" },
        .{ "{\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":3}}]}", "classification is not supported" },
        .{ "{\"inputs\":[{\"data\":[1]}]}", "an input without a name" },
        .{ "{\"inputs\":[{\"name\":\"a\",\"name\":\"a\"}]}", "\"name\" is there twice" },
        .{ "{\"id\":1}", "id is not a string" },
        .{ "{\"outputs\":[{\"name\":\"x\"}]}", "the model has no output \"x\"; the first is \"y\"" },
        .{ "{\"outputs\":[{\"name\":\"y\"},{\"name\":\"y\"}]}", "output \"y\" is asked for twice" },
        .{ "{\"outputs\":[{}]}", "an output without a name" },
        .{ "{\"inputs\":{}}", "the request is not well-formed JSON of the expected kind" },
        .{ "[]", "the request is not well-formed JSON of the expected kind" },
        .{ "{\"inputs\":[" ++ a_json ++ "," ++ b_json ++ "]} x", "the request is not well-formed JSON of the expected kind" },
    }) |case| {
        var asked: Asked = .{};
        try testing.expectError(error.Problem, asked.read(&two, case[0]));
        try testing.expectEqualStrings(case[1], asked.problem.reason());
        try testing.expectEqual(.bad_request, asked.problem.status);
    }
}

test "a request cut or changed at any byte is answered, never a crash" {
    const whole = "{\"id\":\"1\",\"inputs\":[{\"data\":[[1.5,-2]],\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\"}," ++ b_json ++ "],\"outputs\":[{\"name\":\"y\"}]}";
    for (0..whole.len) |len| {
        var asked: Asked = .{};
        try testing.expectError(error.Problem, asked.read(&two, whole[0..len]));
    }
    var random: std.Random.DefaultPrng = .init(7);
    for (0..20_000) |_| {
        var bytes = whole.*;
        for (0..1 + random.random().uintLessThan(usize, 4)) |_| {
            const palette = "{}[]\",:\\0123456789-.eEtfnulrasx \x00\xff";
            bytes[random.random().uintLessThan(usize, bytes.len)] = palette[random.random().uintLessThan(usize, palette.len)];
        }
        var asked: Asked = .{};
        asked.read(&two, &bytes) catch |err| try testing.expectEqual(error.Problem, err);
    }
}

test "nesting and length are bounded" {
    var asked: Asked = .{};
    const deep: [100_000]u8 = @splat('[');
    try testing.expectError(error.Problem, asked.read(&two, "{\"later\":" ++ &deep));
    try testing.expectEqualStrings("the request is nested too deep", asked.problem.reason());
    const long: [300]u8 = @splat('i');
    try testing.expectError(error.Problem, asked.read(&two, "{\"id\":\"" ++ &long ++ "\"}"));
    try testing.expectEqualStrings("id is longer than 256 bytes", asked.problem.reason());
    try asked.expect(&one, "{\"" ++ &long ++ "\":\"" ++ &long ++ "\",\"inputs\":[" ++ a_json ++ "]}");
}

test "binary data follows the JSON in the order of the inputs, and mixes with JSON" {
    var asked: Asked = .{};
    try asked.expectBinary(&one, "{\"inputs\":[" ++ a_binary ++ "]}", a_bytes);
    try asked.expectBinary(&one, "{\"inputs\":[" ++ a_json ++ "]}", "");
    try asked.expectBinary(&two, "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "]} ", a_bytes ++ b_bytes);
    asked = .{};
    try asked.expectBinary(&two, "{\"inputs\":[" ++ b_binary ++ "," ++ a_binary ++ "]}", b_bytes ++ a_bytes);
    asked = .{};
    try asked.expectBinary(&two, "{\"inputs\":[" ++ b_binary ++ "," ++ a_json ++ "]}", b_bytes);
    try testing.expectEqual(null, asked.infer.parts(&two, &asked.staging));
    asked = .{};
    try asked.expectBinary(&two, "{\"inputs\":[" ++ b_json ++ "," ++ a_binary ++ "],\"parameters\":{\"binary_data_output\":true}}", a_bytes);
    try testing.expectEqual(5, asked.infer.parts(&two, &asked.staging).?.tensor_bytes);
    // What an output says itself counts more than what is said of all.
    try asked.expectBinary(&one, "{\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":false}},{\"name\":\"z\"}]," ++
        "\"parameters\":{\"binary_data_output\":true},\"inputs\":[" ++ a_binary ++ "]}", a_bytes);
    try testing.expectEqual(1, asked.infer.parts(&one, &asked.staging).?.tensor_bytes);
    // A body without JSON.
    asked = .{};
    try asked.expectBinary(&one, "", a_bytes);
    try testing.expectEqual(5, asked.infer.parts(&one, &asked.staging).?.tensor_bytes);
}

test "binary data that is longer, shorter or elsewhere than it says is refused" {
    const both = "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "]}";
    const short = "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":4}}]}";
    for (0..11) |len| {
        var asked: Asked = .{};
        try testing.expectError(error.Problem, asked.readBinary(&two, both, (a_bytes ++ b_bytes)[0..len]));
        try testing.expect(std.mem.endsWith(u8, asked.problem.reason(), " bytes follow the JSON, expected 11"));
    }
    for ([_]struct { []const u8, []const u8, ?u64, ?u64, []const u8 }{
        .{ both, a_bytes, both.len, null, "fewer bytes follow the JSON than the expected 11" },
        .{ both, a_bytes ++ b_bytes ++ "x", both.len, null, "more bytes follow the JSON than the expected 11" },
        .{ both, a_bytes ++ b_bytes ++ "x", both.len, both.len + 12, "12 bytes follow the JSON, expected 11" },
        .{ both, a_bytes ++ b_bytes, both.len + 12, both.len + 11, "Inference-Header-Content-Length is 198, and the body has 197 bytes" },
        .{ both, a_bytes ++ b_bytes, both.len - 1, null, "the request is not well-formed JSON of the expected kind" },
        .{ both, a_bytes ++ b_bytes, both.len + 1, null, "the request is not well-formed JSON of the expected kind" },
        .{ "", a_bytes, 0, 8, "a body without JSON is for models with one input; this has 2" },
        .{ short, "", short.len, null, "input \"a\": binary_data_size is 4, expected 8" },
    }) |case| {
        var asked: Asked = .{};
        const whole = try std.mem.concat(testing.allocator, u8, &.{ case[0], case[1] });
        defer testing.allocator.free(whole);
        var body: Io.Reader = .fixed(whole);
        try testing.expectError(error.Problem, asked.readFrom(&two, .{ .body = &body, .json_bytes = case[2], .total_bytes = case[3] }));
        try testing.expectEqualStrings(case[4], asked.problem.reason());
    }
}

test "binary requests changed at any byte and divided anywhere are answered, never a crash" {
    const json = "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "],\"outputs\":[{\"name\":\"y\",\"parameters\":{\"shared_memory_region\":\"r\",\"shared_memory_byte_size\":4}}]}";
    const whole = json ++ a_bytes ++ b_bytes;
    var source: std.Random.DefaultPrng = .init(8);
    const random = source.random();
    for (0..20_000) |_| {
        var bytes = whole.*;
        const palette = "{}[]\",:\\0123456789-.eEtfnulrasx \x00\xff";
        bytes[random.uintLessThan(usize, bytes.len)] = palette[random.uintLessThan(usize, palette.len)];
        const len = if (random.boolean()) bytes.len else random.uintLessThan(usize, bytes.len);
        const json_bytes: u64 = switch (random.uintLessThan(u8, 4)) {
            0 => random.uintLessThan(u64, 2 * bytes.len),
            1 => 1 << 59,
            else => json.len,
        };
        var body: Io.Reader = .fixed(bytes[0..len]);
        var asked: Asked = .{};
        const framing: infer_request.Source = .{ .body = &body, .json_bytes = json_bytes, .total_bytes = if (random.boolean()) len else null };
        asked.readFrom(&two, framing) catch |err| try testing.expectEqual(error.Problem, err);
        asked.infer.release();
        for (asked.staging[67..128]) |byte| try testing.expectEqual(0xee, byte);
    }
}

test "a byte that is neither true nor false is no BOOL" {
    const flags = model(&.{.{ .name = "a", .dtype = .bool, .shape = &.{3}, .nbytes = 3, .offset = 0 }});
    var asked: Asked = .{};
    try asked.readBinary(&flags, "", "\x00\x01\x01");
    try testing.expectError(error.Problem, asked.readBinary(&flags, "", "\x00\x01\x02"));
    try testing.expectEqualStrings("input \"a\": element 2 is no BOOL", asked.problem.reason());
}
