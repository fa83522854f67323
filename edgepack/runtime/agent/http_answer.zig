//! Answers of HTTP/1.1: JSON unless something else is said, or JSON with tensors behind it.

const std = @import("std");
const Io = std.Io;
const http = @import("http.zig");
const Head = http.Head;
const Status = http.Status;

/// One answer. What fits the buffer goes out with Content-Length; what does not, in chunks of the
/// buffer's size (to HTTP/1.0, which has none: until the connection closes). With `parts` the length
/// is known before anything is written, and the head tells where the tensors begin.
pub const Answer = struct {
    writer: Io.Writer,
    out: *Io.Writer,
    head: Head,
    status: Status,
    keep_alive: bool,
    parts: ?Parts = null,
    /// For the header of this name; 0 for none.
    retry_after_s: u32 = 0,
    content_type: []const u8 = "application/json",
    started: bool = false,

    pub const Parts = struct { json_bytes: u64, tensor_bytes: u64 };

    pub fn init(out: *Io.Writer, head: Head, status: Status, keep_alive: bool, buffer: []u8) Answer {
        return .{
            .writer = .{ .vtable = &.{ .drain = drain }, .buffer = buffer },
            .out = out,
            .head = head,
            .status = status,
            .keep_alive = keep_alive,
        };
    }

    /// Sends what is left. The connection may be used again where this succeeds and keep_alive is set.
    pub fn finish(self: *Answer) Io.Writer.Error!void {
        const rest = self.writer.buffered();
        if (!self.started) {
            try self.writeHead(rest.len);
            if (self.head.method != .HEAD) try self.out.writeAll(rest);
        } else {
            try self.writeChunk(rest);
            if (self.isChunked()) try self.out.writeAll("0\r\n\r\n");
        }
        self.writer.end = 0;
        try self.out.flush();
    }

    fn isChunked(self: *const Answer) bool {
        return self.parts == null and !self.head.http_1_0 and self.head.method != .HEAD;
    }

    fn writeHead(self: *Answer, buffered: ?u64) Io.Writer.Error!void {
        const content_length: ?u64 = if (self.parts) |it| it.json_bytes + it.tensor_bytes else buffered;
        if (content_length == null and self.head.http_1_0) self.keep_alive = false;
        try self.out.print("HTTP/1.1 {d} {s}\r\nContent-Type: {s}\r\n", .{
            @backingInt(self.status), self.status.phrase(), if (self.parts == null) self.content_type else "application/octet-stream",
        });
        if (self.parts) |it| try self.out.print("Inference-Header-Content-Length: {d}\r\n", .{it.json_bytes});
        if (content_length) |length| {
            try self.out.print("Content-Length: {d}\r\n", .{length});
        } else if (!self.head.http_1_0) {
            try self.out.writeAll("Transfer-Encoding: chunked\r\n");
        }
        if (self.status == .method_not_allowed) try self.out.writeAll("Allow: GET, HEAD, POST\r\n");
        if (self.retry_after_s > 0) try self.out.print("Retry-After: {d}\r\n", .{self.retry_after_s});
        try self.out.print("Connection: {s}\r\n\r\n", .{if (self.keep_alive) "keep-alive" else "close"});
        self.started = true;
    }

    fn writeChunk(self: *Answer, bytes: []const u8) Io.Writer.Error!void {
        if (bytes.len == 0 or self.head.method == .HEAD) return;
        if (self.isChunked()) try self.out.print("{x}\r\n", .{bytes.len});
        try self.out.writeAll(bytes);
        if (self.isChunked()) try self.out.writeAll("\r\n");
    }

    fn drain(writer: *Io.Writer, data: []const []const u8, splat: usize) Io.Writer.Error!usize {
        const self: *Answer = @alignCast(@fieldParentPtr("writer", writer));
        if (!self.started) try self.writeHead(null);
        try self.writeChunk(writer.buffered());
        writer.end = 0;
        var taken: usize = 0;
        for (data, 0..) |bytes, index| {
            for (0..if (index + 1 == data.len) splat else 1) |_| {
                try self.writeChunk(bytes);
                taken += bytes.len;
            }
        }
        return taken;
    }
};
