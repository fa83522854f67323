//! Tells a running server that a model's state changed, and asks whether one runs: one small HTTP
//! request over ROOT/run/agent.sock. That no server runs is no error: it reads the state when it starts.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const socket_timeout = @import("socket_timeout.zig");

/// A server starts the new worker before it answers.
const answer_seconds = 120;
/// A status of 256 models has about 200 KiB.
const max_answer = 1 << 20;

pub const Answer = struct { status: u16, body: []const u8 };

/// Refused, with check "worker" and the server's own words, where a server runs and cannot load it.
pub fn load(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, model: []const u8) refusals.Error!void {
    const path = try std.fmt.allocPrint(arena, "/v2/repository/models/{s}/load", .{model});
    const answer = ask(arena, io, root, "POST", path) catch |err| switch (err) {
        error.NotRunning => return,
        error.OutOfMemory => return error.OutOfMemory,
        else => return refusal.because(.worker, "the running server did not answer when told of the new version: {t}", .{err}),
    };
    if (answer.status == 200) return;
    return refusal.because(.worker, "the running server cannot load it: {s} ({d})", .{ errorText(arena, answer.body), answer.status });
}

pub fn isServing(arena: Allocator, io: Io, root: []const u8) bool {
    const answer = ask(arena, io, root, "GET", "/v2/health/live") catch return false;
    return answer.status == 200;
}

/// The status of the device by the server that runs: one JSON object on one line. Null where none runs,
/// or one of another version that has no such answer.
pub fn deviceStatus(arena: Allocator, io: Io, root: []const u8) ?[]const u8 {
    const answer = ask(arena, io, root, "GET", "/v2/status") catch return null;
    const whole = answer.status == 200 and std.mem.startsWith(u8, answer.body, "{") and std.mem.endsWith(u8, answer.body, "]}");
    return if (whole and std.mem.findScalar(u8, answer.body, '\n') == null) answer.body else null;
}

/// One request without a body.
pub fn ask(arena: Allocator, io: Io, root: []const u8, method: []const u8, path: []const u8) !Answer {
    const socket_path = try std.fmt.allocPrint(arena, "{s}/run/agent.sock", .{root});
    const address = Io.net.UnixAddress.init(socket_path) catch return error.NotRunning; // could not have been bound
    const stream = address.connect(io) catch |err| switch (err) {
        error.FileNotFound, error.ConnectionRefused, error.NotDir => return error.NotRunning,
        else => return err,
    };
    defer stream.close(io);
    socket_timeout.set(stream.socket.handle, answer_seconds);
    var write_buffer: [512]u8 = undefined;
    var writer = stream.writer(io, &write_buffer);
    // HTTP/1.0: the answer comes in one piece, however long it is.
    try writer.interface.print("{s} {s} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", .{ method, path });
    try writer.interface.flush();
    var read_buffer: [1024]u8 = undefined;
    var reader = stream.reader(io, &read_buffer);
    return parseAnswer(try reader.interface.allocRemaining(arena, .limited(max_answer)));
}

/// "HTTP/1.1 200 OK\r\n...\r\n\r\nBODY"
fn parseAnswer(bytes: []const u8) error{NotHttp}!Answer {
    if (bytes.len < 12 or !std.mem.startsWith(u8, bytes, "HTTP/1.1 ")) return error.NotHttp;
    const status = std.fmt.parseInt(u16, bytes[9..12], 10) catch return error.NotHttp;
    const head_end = std.mem.find(u8, bytes, "\r\n\r\n") orelse return error.NotHttp;
    return .{ .status = status, .body = bytes[head_end + 4 ..] };
}

/// {"error": TEXT}
pub fn errorText(arena: Allocator, body: []const u8) []const u8 {
    const Failure = struct { @"error": []const u8 };
    const failure = std.json.parseFromSliceLeaky(Failure, arena, body, .{ .ignore_unknown_fields = true }) catch return "no reason given";
    return failure.@"error";
}

const testing = std.testing;

test "answers are understood, and what is no HTTP is none" {
    const answer = try parseAnswer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 15\r\n\r\n{\"error\":\"why\"}");
    try testing.expectEqual(503, answer.status);
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    try testing.expectEqualStrings("why", errorText(arena.allocator(), answer.body));
    try testing.expectEqualStrings("no reason given", errorText(arena.allocator(), "<html>"));
    for ([_][]const u8{ "", "HTTP/1.1 ", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n" }) |bad| {
        try testing.expectError(error.NotHttp, parseAnswer(bad));
    }
}
