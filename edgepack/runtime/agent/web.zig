//! Blobs and pointers over HTTP: a web root or a bucket prefix, read with plain GET.
//!
//! No TLS: Zig's would add 490 KB to the agent, and would add secrecy but no trust, since a pointer is
//! signed and a blob has a signed digest and size. One connection for each request. What is read is
//! bounded by the caller, a server that goes silent by `silence_ms`, redirects by `max_redirects`.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const linux = std.os.linux;
const clock = @import("clock.zig");
const Connection = @import("connection.zig").Connection;
const http = @import("http.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const resolve = @import("resolve.zig");

const max_redirects = 5;
const max_url = 2048;
const connect_ms = 15_000;
const silence_ms = 60_000;
const max_body = 1 << 33;

pub const Web = struct {
    arena: Allocator,
    io: Io,
    refusal: *Refusal,
    /// Without a slash at its end.
    base: []const u8,
    fd: linux.fd_t = -1,
    connection: Connection = undefined,
    body: http.Body = undefined,
    url_buffer: [max_url]u8 = undefined,
    redirect_buffer: [2 * max_url]u8 = undefined,
    read_buffer: [2 * http.max_head_bytes]u8 = undefined,
    write_buffer: [max_url]u8 = undefined,
    body_buffer: [1]u8 = undefined, // blobs are read past it, into their own chunks

    /// The result is not to be moved once get() was called.
    pub fn init(arena: Allocator, io: Io, refusal: *Refusal, url: []const u8) error{Refused}!Web {
        const uri = std.Uri.parse(url) catch return refusal.because(.usage, "not a URL: {s}", .{url});
        if (std.mem.eql(u8, uri.scheme, "https")) {
            return refusal.because(.source, "this agent has no TLS; pull over http (what is pulled is signed and checked), or push over ssh", .{});
        }
        if (!std.mem.eql(u8, uri.scheme, "http") or uri.host == null) {
            return refusal.because(.usage, "pull takes a directory or an http URL, not {s}", .{url});
        }
        if (uri.query != null or uri.fragment != null or uri.user != null or url.len > max_url / 2) {
            return refusal.because(.usage, "the URL to pull from is a plain prefix below {d} bytes, without user, ? and #", .{max_url / 2});
        }
        return .{ .arena = arena, .io = io, .refusal = refusal, .base = std.mem.trimEnd(u8, url, "/") };
    }

    /// Ready to read base/path until the next get(); false where the server says 404. With `size`, a
    /// body of another length is refused before it is read.
    pub fn get(self: *Web, path: []const u8, size: ?u64) error{Refused}!bool {
        const url = std.fmt.bufPrint(&self.url_buffer, "{s}/{s}", .{ self.base, path }) catch
            return self.refusal.because(.source, "the URL of {s} is too long", .{path});
        var uri = std.Uri.parse(url) catch return self.refusal.because(.source, "not a URL: {s}", .{url});
        for (0..max_redirects + 1) |_| {
            const response = try self.request(uri, path);
            switch (response.status) {
                301, 302, 303, 307, 308 => uri = try self.follow(uri, response.location),
                404 => return false,
                200 => {
                    if (response.length == null and !response.chunked) {
                        return self.refusal.because(.source, "{s}: the server does not say where it ends", .{path});
                    }
                    if (size != null and response.length != null and size.? != response.length.?) {
                        return self.refusal.because(.digest, "{s} has {d} bytes, signed were {d}", .{ path, response.length.?, size.? });
                    }
                    self.begin(response);
                    return true;
                },
                else => return self.refusal.because(.source, "{s}: the server answers {d}", .{ path, response.status }),
            }
        }
        return self.refusal.because(.source, "{s}: more than {d} redirects", .{ path, max_redirects });
    }

    /// Fills the buffer, unless the body ends before.
    pub fn read(self: *Web, buffer: []u8) error{ReadFailed}!usize {
        self.connection.deadline = clock.milliseconds() + silence_ms;
        return self.body.interface.readSliceShort(buffer);
    }

    fn request(self: *Web, uri: std.Uri, path: []const u8) error{Refused}!Response {
        try self.connect(uri);
        self.send(uri) catch return self.refusal.because(.source, "{s}: the server takes no request", .{path});
        const head = http.receiveHead(&self.connection.reader) catch |err|
            return self.refusal.because(.source, "{s}: no answer ({t})", .{ path, err });
        return Response.parse(head) catch |err|
            self.refusal.because(.source, "{s}: not an answer in HTTP that is understood ({t})", .{ path, err });
    }

    pub fn connect(self: *Web, uri: std.Uri) error{Refused}!void {
        self.disconnect();
        var host_buffer: [256]u8 = undefined;
        const host = if (uri.host) |it| it.toRaw(&host_buffer) catch "" else "";
        const addresses = resolve.resolve(self.arena, self.io, host, uri.port orelse 80);
        if (addresses.len == 0) return self.refusal.because(.source, "the address of {s} cannot be found", .{host});
        for (addresses.slice()) |address| {
            self.fd = resolve.connectTo(address, linux.SOCK.STREAM, clock.milliseconds() + connect_ms) orelse continue;
            self.connection = .init(self.fd, -1, &self.read_buffer, &self.write_buffer);
            self.connection.deadline = clock.milliseconds() + silence_ms;
            return;
        }
        return self.refusal.because(.source, "cannot connect to {s}", .{host});
    }

    pub fn disconnect(self: *Web) void {
        if (self.fd >= 0) _ = linux.close(self.fd);
        self.fd = -1;
    }

    fn send(self: *Web, uri: std.Uri) Io.Writer.Error!void {
        const out = &self.connection.writer;
        try out.print("GET {f} HTTP/1.1\r\nHost: {f}\r\nUser-Agent: edgepack-agent\r\nConnection: close\r\n\r\n", .{
            uri.fmt(.{ .path = true, .query = true }),
            uri.fmt(.{ .authority = true, .port = true }),
        });
        try out.flush();
    }

    fn begin(self: *Web, response: Response) void {
        const head: http.Head = .{
            .method = .GET,
            .path = "",
            .http_1_0 = false,
            .keep_alive = false,
            .content_length = response.length,
            .chunked = response.chunked,
        };
        self.body = .init(&self.connection.reader, head, max_body, &self.body_buffer);
    }

    fn follow(self: *Web, uri: std.Uri, location: ?[]const u8) error{Refused}!std.Uri {
        const to = location orelse return self.refusal.because(.source, "a redirect to nowhere", .{});
        if (to.len > max_url) return self.refusal.because(.source, "a redirect that is too long", .{});
        var scratch: [2 * max_url]u8 = undefined;
        @memcpy(scratch[0..to.len], to);
        var free: []u8 = &scratch;
        const resolved = uri.resolveInPlace(to.len, &free) catch
            return self.refusal.because(.source, "a redirect that is no URL: {s}", .{to});
        if (!std.mem.eql(u8, resolved.scheme, "http")) {
            return self.refusal.because(.source, "redirected to {s}, but this agent speaks http only", .{resolved.scheme});
        }
        // `uri`, and with it `resolved`, may lie in the buffer that the next one is kept in.
        var text_buffer: [2 * max_url]u8 = undefined;
        const printed = std.fmt.bufPrint(&text_buffer, "{f}", .{resolved}) catch
            return self.refusal.because(.source, "a redirect that is too long", .{});
        const text = self.redirect_buffer[0..printed.len];
        @memcpy(text, printed);
        return std.Uri.parse(text) catch self.refusal.because(.source, "a redirect that is no URL: {s}", .{text});
    }
};

/// What matters of a response's head; points into it.
pub const Response = struct {
    status: u16,
    length: ?u64 = null,
    chunked: bool = false,
    location: ?[]const u8 = null,

    pub fn parse(head: []const u8) error{ NotHttp, Ambiguous, Encoded }!Response {
        var lines = std.mem.splitSequence(u8, head, "\r\n");
        const first = lines.next().?;
        if (first.len < 12 or !std.mem.startsWith(u8, first, "HTTP/1.")) return error.NotHttp;
        var response: Response = .{ .status = std.fmt.parseInt(u16, first[9..12], 10) catch return error.NotHttp };
        while (lines.next()) |line| {
            if (line.len == 0) break;
            const colon = std.mem.findScalar(u8, line, ':') orelse return error.NotHttp;
            try response.take(line[0..colon], std.mem.trim(u8, line[colon + 1 ..], " \t"));
        }
        if (response.chunked and response.length != null) return error.Ambiguous;
        return response;
    }

    fn take(self: *Response, name: []const u8, value: []const u8) error{ NotHttp, Ambiguous, Encoded }!void {
        const is = std.ascii.eqlIgnoreCase;
        if (is(name, "content-length")) {
            if (self.length != null) return error.Ambiguous;
            for (value) |byte| if (!std.ascii.isDigit(byte)) return error.NotHttp;
            self.length = std.fmt.parseInt(u64, value, 10) catch return error.NotHttp;
        } else if (is(name, "transfer-encoding")) {
            if (self.chunked or !is(value, "chunked")) return error.Encoded;
            self.chunked = true;
        } else if (is(name, "content-encoding")) {
            if (!is(value, "identity")) return error.Encoded;
        } else if (is(name, "location")) {
            self.location = value;
        }
    }
};

const testing = std.testing;

test "answers that are ambiguous, encoded or no HTTP are refused" {
    const good = try Response.parse("HTTP/1.0 302 Found\r\nlocation: /x\r\nContent-Length: 12\r\n\r\n");
    try testing.expectEqual(302, good.status);
    try testing.expectEqual(12, good.length.?);
    try testing.expectEqualStrings("/x", good.location.?);
    for ([_][]const u8{
        "\r\n\r\n",
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 2xx OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    }) |bad| try testing.expect(std.meta.isError(Response.parse(bad)));
}
