//! Tests of http.zig and http_answer.zig: what must be refused is refused, and nothing panics.

const std = @import("std");
const Io = std.Io;
const testing = std.testing;
const http = @import("http.zig");
const Answer = @import("http_answer.zig").Answer;
const Body = http.Body;
const Head = http.Head;

test "heads are read as they are meant" {
    const head = try Head.parse("POST /v2/models/m/infer?x=1 HTTP/1.1\r\nhost: a\r\nCONTENT-length:  12 \r\nExpect: 100-Continue\r\n\r\n");
    try testing.expectEqual(.POST, head.method);
    try testing.expectEqualStrings("/v2/models/m/infer", head.path);
    try testing.expectEqual(12, head.content_length.?);
    try testing.expect(head.keep_alive and head.expect_continue and !head.chunked);
    try testing.expect(!(try Head.parse("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n")).keep_alive);
    try testing.expect(!(try Head.parse("GET / HTTP/1.0\r\n\r\n")).keep_alive);
    try testing.expect((try Head.parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")).keep_alive);
    try testing.expectEqual(0, (try Head.parse("POST / HTTP/1.1\r\nInference-Header-Content-Length: 0\r\n\r\n")).json_length);
    try testing.expect((try Head.parse("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n")).chunked);
    try testing.expectEqual(.other, (try Head.parse("DELETE / HTTP/1.1\r\n\r\n")).method);
}

test "what a web page sends is told from what a program sends" {
    for ([_][]const u8{ "localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535" }) |host| {
        try testing.expectEqual(null, try webTrouble("Host", host));
    }
    for ([_][]const u8{ "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::1]x", "::1", "127.0.0.2", "localhost:80x" }) |host| {
        try testing.expect(try webTrouble("Host", host) != null);
    }
    try testing.expect(try webTrouble("X", "y") != null);
    for ([_][]const u8{ "null", "http://localhost", "" }) |origin| {
        try testing.expect(try webTrouble("Host: localhost\r\nORIGIN", origin) != null);
    }
    try testing.expectError(error.Malformed, webTrouble("Host: localhost\r\nHost", "localhost"));
}

fn webTrouble(name: []const u8, value: []const u8) !?[]const u8 {
    var buffer: [128]u8 = undefined;
    const head = try Head.parse(try std.fmt.bufPrint(&buffer, "GET / HTTP/1.1\r\n{s}: {s}\r\n\r\n", .{ name, value }));
    return head.webTrouble();
}

test "heads that are ambiguous or malformed are refused" {
    const malformed = [_][]const u8{
        "\r\n",                                                                       "GET\r\n\r\n",                                                                         "GET /\r\n\r\n",
        "GET / HTTP/1.1 x\r\n\r\n",                                                   "GET  / HTTP/1.1\r\n\r\n",                                                             "GET x HTTP/1.1\r\n\r\n",
        "GET / HTTP/11\r\n\r\n",                                                      "G\x01T / HTTP/1.1\r\n\r\n",                                                           "GET /\xff HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",                                         "GET / HTTP/1.1\r\na : b\r\n\r\n",                                                     "GET / HTTP/1.1\r\n folded: b\r\n\r\n",
        "GET / HTTP/1.1\r\na: b\x00\r\n\r\n",                                         "GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",                                                "GET / HTTP/1.1\r\n: b\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",                              "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",                                       "POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",                                 "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",                     "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for ([_][]const u8{ "-1", "", "x", "1234567890123456789", "1\r\nInference-Header-Content-Length: 1" }) |value| {
        var buffer: [128]u8 = undefined;
        const bytes = try std.fmt.bufPrint(&buffer, "POST / HTTP/1.1\r\nInference-Header-Content-Length: {s}\r\n\r\n", .{value});
        try testing.expectError(error.Malformed, Head.parse(bytes));
    }
    for (malformed) |bytes| try testing.expectError(error.Malformed, Head.parse(bytes));
    try testing.expectError(error.UnsupportedVersion, Head.parse("GET / HTTP/2.0\r\n\r\n"));
    try testing.expectError(error.UnsupportedTransfer, Head.parse("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"));
    try testing.expectError(error.UnsupportedEncoding, Head.parse("POST / HTTP/1.1\r\nContent-Encoding: gzip\r\n\r\n"));
    try testing.expectError(error.UnknownExpectation, Head.parse("POST / HTTP/1.1\r\nExpect: tea\r\n\r\n"));
}

const chunked: Head = .{ .method = .POST, .path = "/", .http_1_0 = false, .keep_alive = true, .chunked = true };

fn byLength(length: u64) Head {
    return .{ .method = .POST, .path = "/", .http_1_0 = false, .keep_alive = true, .content_length = length };
}

/// The body's contents, or how it failed; `rest` is what stays for the next request.
fn readBody(head: Head, bytes: []const u8, max_bytes: u64, rest: []const u8) !void {
    return readBodyInto(head, bytes, max_bytes, rest, "hello world");
}

fn readBodyInto(head: Head, bytes: []const u8, max_bytes: u64, rest: []const u8, expected: []const u8) !void {
    // One byte at a time, and all at once.
    for ([_]usize{ 1, 4096 }) |piece| {
        var slow: Trickle = .init(bytes, piece);
        var buffer: [7]u8 = undefined;
        var body: Body = .init(&slow.interface, head, max_bytes, &buffer);
        var out_buffer: [64]u8 = undefined;
        var out: Io.Writer = .fixed(&out_buffer);
        if (body.interface.streamRemaining(&out)) |_| {
            try testing.expectEqualStrings(expected, out.buffered());
            const left = try slow.interface.allocRemaining(testing.allocator, .unlimited);
            defer testing.allocator.free(left);
            try testing.expectEqualStrings(rest, left);
        } else |err| {
            try testing.expectEqual(error.ReadFailed, err);
            try testing.expect(!body.skipRest());
            return switch (body.failure) {
                .too_large => error.TooLarge,
                .malformed => error.Malformed,
                .cut => error.Cut,
                .none => unreachable,
            };
        }
    }
}

/// A source that gives so many bytes at a time.
const Trickle = struct {
    interface: Io.Reader,
    bytes: []const u8,
    piece: usize,
    buffer: [4096]u8 = undefined,

    fn init(bytes: []const u8, piece: usize) Trickle {
        return .{ .interface = .{ .vtable = &.{ .stream = stream }, .buffer = &static_buffer, .seek = 0, .end = 0 }, .bytes = bytes, .piece = piece };
    }

    var static_buffer: [16 << 10]u8 = undefined;

    fn stream(reader: *Io.Reader, writer: *Io.Writer, limit: Io.Limit) Io.Reader.StreamError!usize {
        const self: *Trickle = @alignCast(@fieldParentPtr("interface", reader));
        if (self.bytes.len == 0) return error.EndOfStream;
        const count = try writer.write(limit.sliceConst(self.bytes[0..@min(self.piece, self.bytes.len)]));
        self.bytes = self.bytes[count..];
        return count;
    }
};

test "bodies end where they say" {
    try readBody(byLength(11), "hello worldNEXT", 11, "NEXT");
    try readBody(chunked, "5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\nNEXT", 11, "NEXT");
    try readBody(chunked, "00000B \r\nhello world\r\n0\r\n\r\n", 11, "");
    try readBodyInto(chunked, "0\r\n\r\nNEXT", 0, "NEXT", "");
    try readBodyInto(byLength(0), "NEXT", 0, "NEXT", "");
}

test "bodies that are too large, cut or malformed are told apart" {
    try testing.expectError(error.TooLarge, readBody(byLength(11), "hello world", 10, ""));
    try testing.expectError(error.TooLarge, readBody(chunked, "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", 10, ""));
    try testing.expectError(error.TooLarge, readBody(chunked, "fffffffffffffff\r\nhello", 10, ""));
    for (0..11) |len| try testing.expectError(error.Cut, readBody(byLength(11), "hello world"[0..len], 99, ""));
    const whole = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    for (0..whole.len) |len| try testing.expectError(error.Cut, readBody(chunked, whole[0..len], 99, ""));
    const long: [300]u8 = @splat('0');
    for ([_][]const u8{
        "ffffffffffffffff\r\nhello", "\r\nhello", "x\r\n", "-1\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n", "5\r\nhello0\r\n\r\n", &long ++ "\r\n",
    }) |bad| try testing.expectError(error.Malformed, readBody(chunked, bad, 99, ""));
}

test "what fits goes out with its length, what does not in chunks" {
    var out_buffer: [1024]u8 = undefined;
    var buffer: [8]u8 = undefined;
    var head = byLength(0);
    {
        var out: Io.Writer = .fixed(&out_buffer);
        var answer: Answer = .init(&out, head, .ok, true, &buffer);
        try answer.writer.writeAll("12345678");
        try answer.finish();
        try testing.expectEqualStrings("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\nConnection: keep-alive\r\n\r\n12345678", out.buffered());
    }
    {
        var out: Io.Writer = .fixed(&out_buffer);
        var answer: Answer = .init(&out, head, .ok, true, &buffer);
        try answer.writer.writeAll("12345");
        try answer.writer.writeAll("67890");
        try answer.finish();
        const body = out.buffered()[std.mem.find(u8, out.buffered(), "\r\n\r\n").? + 4 ..];
        var source: Io.Reader = .fixed(body);
        var decode_buffer: [16]u8 = undefined;
        var decoded: Body = .init(&source, chunked, 99, &decode_buffer);
        const text = try decoded.interface.allocRemaining(testing.allocator, .unlimited);
        defer testing.allocator.free(text);
        try testing.expectEqualStrings("1234567890", text);
    }
    head.http_1_0 = true;
    {
        var out: Io.Writer = .fixed(&out_buffer);
        var answer: Answer = .init(&out, head, .ok, true, &buffer);
        try answer.writer.writeAll("1234567890");
        try answer.finish();
        try testing.expect(!answer.keep_alive);
        try testing.expect(std.mem.endsWith(u8, out.buffered(), "Connection: close\r\n\r\n1234567890"));
    }
    head.http_1_0 = false;
    {
        var out: Io.Writer = .fixed(&out_buffer);
        var answer: Answer = .init(&out, head, .ok, true, &buffer);
        answer.parts = .{ .json_bytes = 2, .tensor_bytes = 10 };
        try answer.writer.writeAll("{}");
        try answer.writer.writeAll("1234567890");
        try answer.finish();
        try testing.expect(std.mem.find(u8, out.buffered(), "application/octet-stream\r\nInference-Header-Content-Length: 2\r\nContent-Length: 12\r\n") != null);
        try testing.expect(std.mem.endsWith(u8, out.buffered(), "Connection: keep-alive\r\n\r\n{}1234567890"));
    }
    head = .{ .method = .HEAD, .path = "/", .http_1_0 = false, .keep_alive = true };
    var out: Io.Writer = .fixed(&out_buffer);
    var answer: Answer = .init(&out, head, .not_found, true, &buffer);
    try answer.writer.writeAll("123");
    try answer.finish();
    try testing.expect(std.mem.endsWith(u8, out.buffered(), "Content-Length: 3\r\nConnection: keep-alive\r\n\r\n"));
}

test "a head is taken whole, whatever comes with it" {
    for ([_]usize{ 1, 4096 }) |piece| {
        var slow: Trickle = .init("\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nbody", piece);
        try testing.expectEqualStrings("GET / HTTP/1.1\r\nA: b\r\n\r\n", try http.receiveHead(&slow.interface));
        var cut: Trickle = .init("GET / HTTP/1.1\r\n", piece);
        try testing.expectError(error.Cut, http.receiveHead(&cut.interface));
        const long: [http.max_head_bytes + 1]u8 = @splat('a');
        var endless: Trickle = .init(&long, piece);
        try testing.expectError(error.TooLarge, http.receiveHead(&endless.interface));
    }
}
