//! HTTP/1.1 as far as a local API needs it (RFC 9112): request heads, bodies by Content-Length or
//! chunked, answers by Content-Length or chunked, keep-alive, Expect: 100-continue.
//!
//! It is not std.http.Server because that one (0.17.1) panics on a chunk of size ffffffffffffffff,
//! which any local program could send, and gives a body that was cut short as one that ended.
//! Here whatever is ambiguous is refused: both length and chunks, a length twice, folded headers, bare LF.

const std = @import("std");
const Io = std.Io;

pub const max_head_bytes = 8 << 10;
const max_chunk_line = 256;
const max_trailer_lines = 32;

pub const Status = enum(u16) {
    ok = 200,
    bad_request = 400,
    forbidden = 403,
    not_found = 404,
    method_not_allowed = 405,
    request_timeout = 408,
    content_too_large = 413,
    unsupported_media_type = 415,
    expectation_failed = 417,
    header_fields_too_large = 431,
    internal_server_error = 500,
    not_implemented = 501,
    service_unavailable = 503,
    version_not_supported = 505,

    pub fn phrase(status: Status) []const u8 {
        return switch (status) {
            .ok => "OK",
            .bad_request => "Bad Request",
            .forbidden => "Forbidden",
            .not_found => "Not Found",
            .method_not_allowed => "Method Not Allowed",
            .request_timeout => "Request Timeout",
            .content_too_large => "Content Too Large",
            .unsupported_media_type => "Unsupported Media Type",
            .expectation_failed => "Expectation Failed",
            .header_fields_too_large => "Request Header Fields Too Large",
            .internal_server_error => "Internal Server Error",
            .not_implemented => "Not Implemented",
            .service_unavailable => "Service Unavailable",
            .version_not_supported => "HTTP Version Not Supported",
        };
    }
};

pub const Method = enum { GET, HEAD, POST, other };

pub const Head = struct {
    method: Method,
    /// Up to the query, which nothing here takes. Points into the connection's buffer: valid until the
    /// body is read.
    path: []const u8,
    http_1_0: bool,
    keep_alive: bool,
    content_length: ?u64 = null,
    chunked: bool = false,
    expect_continue: bool = false,
    /// Inference-Header-Content-Length: how much of the body is JSON; tensors follow it.
    json_length: ?u64 = null,
    /// It has an Origin: a browser sends it for a web page.
    has_origin: bool = false,
    host: enum { none, loopback, other } = .none,

    pub const Error = error{ Malformed, UnsupportedVersion, UnsupportedTransfer, UnsupportedEncoding, UnknownExpectation };

    /// `bytes` is everything up to and with the empty line.
    pub fn parse(bytes: []const u8) Error!Head {
        var lines = std.mem.splitSequence(u8, bytes, "\r\n");
        var head = try parseRequestLine(lines.next().?);
        while (lines.next()) |line| {
            if (line.len == 0) break;
            try head.parseField(line);
        }
        if (head.chunked and (head.content_length != null or head.http_1_0)) return error.Malformed;
        return head;
    }

    /// Why this must be taken for a web page's doing where any page could send it, over TCP; null where
    /// it need not. A page of another site has an Origin in whatever it can read the answer of, or could
    /// change something with; one whose name now resolves to loopback (DNS rebinding) keeps its Host.
    pub fn webTrouble(head: *const Head) ?[]const u8 {
        if (head.has_origin) return "requests of web pages (with an Origin) are refused";
        return if (head.host == .loopback) null else "over TCP the Host must be localhost, 127.0.0.1 or [::1]";
    }

    fn parseRequestLine(line: []const u8) Error!Head {
        var words = std.mem.splitScalar(u8, line, ' ');
        const method = words.next().?;
        const target = words.next() orelse return error.Malformed;
        const version = words.next() orelse return error.Malformed;
        if (words.next() != null or !isToken(method) or target.len == 0 or target[0] != '/') return error.Malformed;
        for (target) |byte| if (byte <= ' ' or byte >= 0x7f) return error.Malformed;
        if (version.len != 8 or !std.mem.startsWith(u8, version, "HTTP/")) return error.Malformed;
        if (!std.mem.startsWith(u8, version, "HTTP/1.")) return error.UnsupportedVersion;
        const http_1_0 = version[7] == '0';
        return .{
            .method = std.meta.stringToEnum(Method, method) orelse .other,
            .path = target[0 .. std.mem.findScalar(u8, target, '?') orelse target.len],
            .http_1_0 = http_1_0,
            .keep_alive = !http_1_0,
        };
    }

    fn parseField(head: *Head, line: []const u8) Error!void {
        const colon = std.mem.findScalar(u8, line, ':') orelse return error.Malformed;
        const name = line[0..colon];
        const value = std.mem.trim(u8, line[colon + 1 ..], " \t");
        if (!isToken(name)) return error.Malformed; // white space before the colon, folded lines
        for (value) |byte| if ((byte < ' ' and byte != '\t') or byte == 0x7f) return error.Malformed;
        if (is(name, "content-length")) {
            if (head.content_length != null) return error.Malformed;
            head.content_length = try parseLength(value);
        } else if (is(name, "transfer-encoding")) {
            if (head.chunked) return error.Malformed;
            if (!is(value, "chunked")) return error.UnsupportedTransfer;
            head.chunked = true;
        } else if (is(name, "content-encoding")) {
            if (!is(value, "identity")) return error.UnsupportedEncoding;
        } else if (is(name, "expect")) {
            if (!is(value, "100-continue")) return error.UnknownExpectation;
            head.expect_continue = true;
        } else if (is(name, "connection")) {
            var options = std.mem.splitScalar(u8, value, ',');
            while (options.next()) |option| {
                if (is(std.mem.trim(u8, option, " \t"), "close")) head.keep_alive = false;
                if (is(std.mem.trim(u8, option, " \t"), "keep-alive") and head.http_1_0) head.keep_alive = true;
            }
        } else if (is(name, "inference-header-content-length")) {
            if (head.json_length != null) return error.Malformed;
            head.json_length = try parseLength(value);
        } else if (is(name, "origin")) {
            head.has_origin = true;
        } else if (is(name, "host")) {
            if (head.host != .none) return error.Malformed;
            head.host = if (isLoopback(value)) .loopback else .other;
        }
    }

    /// With or without a port.
    fn isLoopback(host: []const u8) bool {
        for ([_][]const u8{ "localhost", "127.0.0.1", "[::1]" }) |name| {
            if (!std.ascii.startsWithIgnoreCase(host, name)) continue;
            const rest = host[name.len..];
            if (rest.len > 0 and rest[0] != ':') return false;
            return for (rest[@min(rest.len, 1)..]) |byte| {
                if (!std.ascii.isDigit(byte)) break false;
            } else true;
        }
        return false;
    }

    /// Digits only; with 18 of them nothing that is added to it overflows.
    fn parseLength(value: []const u8) Error!u64 {
        if (value.len == 0 or value.len > 18) return error.Malformed;
        for (value) |byte| if (!std.ascii.isDigit(byte)) return error.Malformed;
        return std.fmt.parseInt(u64, value, 10) catch return error.Malformed;
    }
};

fn is(text: []const u8, lower: []const u8) bool {
    return std.ascii.eqlIgnoreCase(text, lower);
}

fn isToken(text: []const u8) bool {
    if (text.len == 0) return false;
    for (text) |byte| switch (byte) {
        'a'...'z', 'A'...'Z', '0'...'9', '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~' => {},
        else => return false,
    };
    return true;
}

pub const ReceiveError = error{ TooLarge, Cut, ReadFailed };

/// The next request's head, whole, still in the reader's buffer and consumed from it.
pub fn receiveHead(reader: *Io.Reader) ReceiveError![]const u8 {
    std.debug.assert(reader.buffer.len >= max_head_bytes);
    while (true) {
        // RFC 9112 section 2.2: an empty line before the request line is to be ignored.
        while (std.mem.startsWith(u8, reader.buffered(), "\r\n")) reader.toss(2);
        const bytes = reader.buffered();
        if (std.mem.find(u8, bytes[0..@min(bytes.len, max_head_bytes)], "\r\n\r\n")) |end| {
            reader.toss(end + 4);
            return bytes[0 .. end + 4];
        }
        if (bytes.len >= max_head_bytes) return error.TooLarge;
        reader.fillMore() catch |err| switch (err) {
            error.EndOfStream => return error.Cut,
            error.ReadFailed => return error.ReadFailed,
        };
    }
}

/// The body of one request. Reading ends with EndOfStream after its last byte; whatever else is wrong
/// is ReadFailed, and `failure` says what.
pub const Body = struct {
    interface: Io.Reader,
    source: *Io.Reader,
    state: State,
    /// Bytes of this chunk, or of the whole by Content-Length, still to come.
    remaining: u64,
    /// What the caller is still willing to take.
    allowance: u64,
    failure: Failure = .none,

    pub const Failure = enum { none, too_large, malformed, cut };
    const State = enum { by_length, first_chunk, in_chunk, done };

    /// `buffer` is at least one byte.
    pub fn init(source: *Io.Reader, head: Head, max_bytes: u64, buffer: []u8) Body {
        const length = head.content_length orelse 0;
        return .{
            .interface = .{ .vtable = &.{ .stream = stream }, .buffer = buffer, .seek = 0, .end = 0 },
            .source = source,
            .state = if (head.chunked) .first_chunk else if (length > 0) .by_length else .done,
            .remaining = length,
            .allowance = max_bytes,
        };
    }

    /// Reads to the end, so that the next request can follow; false where there is none to follow.
    pub fn skipRest(self: *Body) bool {
        if (self.failure != .none) return false;
        _ = self.interface.discardRemaining() catch return false;
        return true;
    }

    fn stream(interface: *Io.Reader, writer: *Io.Writer, limit: Io.Limit) Io.Reader.StreamError!usize {
        const self: *Body = @alignCast(@fieldParentPtr("interface", interface));
        if (self.failure != .none) return error.ReadFailed;
        try self.advance();
        if (self.remaining > self.allowance) return self.fail(.too_large);
        const count = self.source.stream(writer, limit.min(.limited64(self.remaining))) catch |err| return switch (err) {
            error.EndOfStream => self.fail(.cut),
            else => |e| e,
        };
        self.remaining -= count;
        self.allowance -= count;
        return count;
    }

    /// Makes `remaining` positive, or ends.
    fn advance(self: *Body) Io.Reader.Error!void {
        while (self.remaining == 0) switch (self.state) {
            .done => return error.EndOfStream,
            .by_length => self.state = .done,
            .first_chunk => try self.startChunk(),
            .in_chunk => {
                if ((try self.takeLine()).len != 0) return self.fail(.malformed);
                try self.startChunk();
            },
        };
    }

    fn startChunk(self: *Body) Io.Reader.Error!void {
        const line = try self.takeLine();
        const size = line[0 .. std.mem.findScalar(u8, line, ';') orelse line.len];
        const digits = std.mem.trimEnd(u8, size, " \t");
        if (digits.len == 0 or digits.len > 15) return self.fail(.malformed); // 60 bits: nothing overflows
        self.remaining = 0;
        for (digits) |digit| {
            self.remaining = self.remaining * 16 + (std.fmt.charToDigit(digit, 16) catch return self.fail(.malformed));
        }
        self.state = .in_chunk;
        if (self.remaining > 0) return;
        for (0..max_trailer_lines) |_| {
            if ((try self.takeLine()).len > 0) continue;
            self.state = .done;
            return;
        }
        return self.fail(.malformed);
    }

    /// Without its CRLF.
    fn takeLine(self: *Body) Io.Reader.Error![]const u8 {
        const line = self.source.takeDelimiterInclusive('\n') catch |err| return switch (err) {
            error.EndOfStream => self.fail(.cut),
            error.StreamTooLong => self.fail(.malformed),
            error.ReadFailed => error.ReadFailed,
        };
        if (line.len > max_chunk_line or !std.mem.endsWith(u8, line, "\r\n")) return self.fail(.malformed);
        return line[0 .. line.len - 2];
    }

    fn fail(self: *Body, failure: Failure) error{ReadFailed} {
        self.failure = failure;
        return error.ReadFailed;
    }
};

test {
    _ = @import("http_test.zig");
}
