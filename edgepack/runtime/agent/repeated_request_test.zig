//! Tests of repeated_request.zig, through infer_request.zig.

const std = @import("std");
const Io = std.Io;
const testing = std.testing;
const infer_request_test = @import("infer_request_test.zig");
const Asked = infer_request_test.Asked;
const a_binary = infer_request_test.a_binary;
const a_bytes = infer_request_test.a_bytes;
const a_json = infer_request_test.a_json;
const b_binary = infer_request_test.b_binary;
const b_bytes = infer_request_test.b_bytes;
const b_json = infer_request_test.b_json;
const two = infer_request_test.two;
const RepeatedRequest = @import("repeated_request.zig").RepeatedRequest;

const blanks: *const [1024]u8 = &@splat(' ');

/// What is kept of a connection's last request, and the problem of the last that was refused.
const Client = struct {
    last: RepeatedRequest = .{},
    asked: Asked = .{},

    fn send(self: *Client, json: []const u8, tensors: []const u8, divided: bool) !void {
        self.asked = .{};
        const whole = try std.mem.concat(testing.allocator, u8, &.{ json, tensors });
        defer testing.allocator.free(whole);
        var body: Io.Reader = .fixed(whole);
        try self.asked.readFrom(&two, .{ .body = &body, .json_bytes = if (divided) json.len else null, .total_bytes = whole.len, .last = self.last.of(1) });
    }

    /// Writes the answer, which holds all that the request asked for.
    fn answer(self: *Client, buffer: []u8) ![]const u8 {
        var writer: Io.Writer = .fixed(buffer);
        try self.asked.infer.writeAnswer(&writer, &two, &self.asked.staging);
        return writer.buffered();
    }
};

test "a request that comes again means the same, whatever came between" {
    const in_order = "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "]}";
    const turned = "{\"inputs\":[" ++ b_binary ++ "," ++ a_binary ++ "],\"outputs\":[{\"name\":\"z\"},{\"name\":\"y\",\"parameters\":{\"binary_data\":false}}],\"parameters\":{\"binary_data_output\":true}}";
    const with_id = "{\"id\":\"7\",\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "]}";
    const captured = "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "],\"parameters\":{\"capture\":true,\"capture_json\":{\"k\":1}}}";
    const long = turned ++ blanks;
    const as_json = "{\"inputs\":[" ++ a_json ++ "," ++ b_json ++ "]}";
    const cases = [_]struct { json: []const u8, tensors: []const u8 = a_bytes ++ b_bytes, kept: bool }{
        .{ .json = in_order, .kept = true },
        .{ .json = turned, .tensors = b_bytes ++ a_bytes, .kept = true },
        .{ .json = long, .tensors = b_bytes ++ a_bytes, .kept = false },
        .{ .json = with_id, .kept = false },
        .{ .json = captured, .kept = false },
        .{ .json = as_json, .tensors = "", .kept = false },
    };
    var client: Client = .{};
    for (cases) |first| for (cases) |second| for ([_]@TypeOf(first){ first, first, second, first }) |case| {
        try client.send(case.json, case.tensors, true);
        try client.asked.expectStaged(&two);
        try testing.expectEqual(case.kept, client.last.is(case.json, true));
        var fresh: Client = .{};
        try fresh.send(case.json, case.tensors, true);
        var buffers: [2][512]u8 = undefined;
        try testing.expectEqualStrings(try fresh.answer(&buffers[0]), try client.answer(&buffers[1]));
        try testing.expectEqual(case.json.ptr == captured.ptr, client.asked.infer.capture.asked);
        try testing.expectEqual(case.json.ptr == captured.ptr, client.asked.infer.capture.caller != null);
    };
}

test "a request is the same only with the same header, data and model" {
    const json = "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "]}";
    var client: Client = .{};
    try client.send(json, a_bytes ++ b_bytes, true);
    try testing.expectError(error.Problem, client.send(json, "", false));
    try testing.expectEqualStrings("input \"a\": binary data needs the header Inference-Header-Content-Length", client.asked.problem.reason());
    try client.send(json, a_bytes ++ b_bytes, true);
    try testing.expectError(error.Problem, client.send(json, a_bytes, true));
    try testing.expectEqualStrings("8 bytes follow the JSON, expected 11", client.asked.problem.reason());
    try testing.expectError(error.Problem, client.send(json[0 .. json.len - 1], a_bytes ++ b_bytes, true));
    try testing.expect(!client.last.is(json, true));
    try client.send(json, a_bytes ++ b_bytes, true);
    try testing.expect(client.last.of(1).is(json, true));
    try testing.expect(!client.last.of(2).is(json, true));
    try testing.expect(!client.last.of(1).is(json, true));
}

test "a request that is long, or for many outputs, is parsed each time" {
    var client: Client = .{};
    const long = "{\"inputs\":[" ++ a_binary ++ "," ++ b_binary ++ "]}" ++ blanks;
    for (0..2) |_| try client.send(long, a_bytes ++ b_bytes, true);
    try testing.expect(!client.last.is(long, true));
    client.last.begin();
    for (0..9) |index| client.last.addOutput(index, &.{});
    client.last.keep("{}", true, &client.asked.infer);
    try testing.expect(!client.last.is("{}", true));
}
