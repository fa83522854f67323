//! ROOT/push.json: where captures are pushed to.
//!
//!     {"url":"http://host[:port][/prefix]"         what is pushed goes to URL/DEVICE/MODEL/FIRST-LAST.epc
//!      "method":"POST"|"PUT"                       POST, if it is not said
//!      "headers":{NAME:VALUE,...}                  16 at most
//!      "batch_bytes":N                             1 KiB to 64 MiB, 1 MiB if it is not said
//!      "interval_s":N                              seconds between two looks for what is new, 60 if it is not said
//!      "form":{NAME:TEXT,...}}                     of a presigned POST: URL itself takes all, see push_form.zig
//!
//! Without TLS everybody on the way can read and repeat what a header or a form says. So a header that is a
//! secret by its name, and every form, is taken for loopback only, where a program that speaks TLS may listen
//! and forward.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const document = @import("document.zig");
const Document = document.Document;
const push_form = @import("push_form.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

pub const file_name = "push.json";
pub const max_file_bytes = 16 << 10;
const max_url = 1024;
const max_headers = 16;
const max_header_name = 64;
const max_header_value = 4096;
const max_form_fields = 24;
const max_form_value = 8192;

/// Those that this agent writes itself.
const own_headers = [_][]const u8{ "host", "content-length", "content-type", "transfer-encoding", "connection", "expect", "user-agent" };
const secret_headers = [_][]const u8{ "authorization", "proxy-authorization", "cookie" };

pub const Header = struct { name: []const u8, value: []const u8 };

pub const Config = struct {
    /// Without a slash at its end.
    url: []const u8,
    put: bool,
    headers: []const Header,
    batch_bytes: u64,
    interval_s: u64,
    form: ?[]const Header = null,

    /// The result lives in `arena` or `bytes`.
    pub fn parse(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!Config {
        const doc: Document = .{ .refusal = refusal, .check = .state, .title = file_name };
        const root = try doc.parse(arena, bytes);
        for (root.keys()) |key| {
            for ([_][]const u8{ "url", "method", "headers", "batch_bytes", "interval_s", "form" }) |known| {
                if (std.mem.eql(u8, key, known)) break;
            } else return doc.malformed("unknown field {s}", .{key});
        }
        const url = try doc.string(root, "url", max_url);
        const host = try checkUrl(doc, url);
        return .{
            .url = std.mem.trimEnd(u8, url, "/"),
            .put = try isPut(doc, root),
            .headers = try parseHeaders(arena, doc, root, isLoopback(host)),
            .batch_bytes = try number(doc, root, "batch_bytes", 1 << 10, 64 << 20, 1 << 20),
            .interval_s = try number(doc, root, "interval_s", 1, 7 * 24 * 60 * 60, 60),
            .form = try parseForm(arena, doc, root, isLoopback(host)),
        };
    }
};

fn checkUrl(doc: Document, url: []const u8) error{Refused}![]const u8 {
    for (url) |byte| if (byte <= ' ' or byte >= 0x7f) return doc.malformed("url holds what a URL cannot", .{});
    const uri = std.Uri.parse(url) catch return doc.malformed("url is none", .{});
    if (std.mem.eql(u8, uri.scheme, "https")) {
        return doc.malformed("this agent has no TLS; push over http to a program on the device that has (stunnel), or through a VPN", .{});
    }
    if (!std.mem.eql(u8, uri.scheme, "http") or uri.host == null) return doc.malformed("url is not http://host/...", .{});
    if (uri.query != null or uri.fragment != null or uri.user != null) return doc.malformed("url is a plain prefix, without user, ? and #", .{});
    return switch (uri.host.?) {
        .raw, .percent_encoded => |text| text,
    };
}

fn isLoopback(host: []const u8) bool {
    for ([_][]const u8{ "localhost", "127.0.0.1", "[::1]", "::1" }) |name| if (std.ascii.eqlIgnoreCase(host, name)) return true;
    return false;
}

fn isPut(doc: Document, root: document.Object) error{Refused}!bool {
    if (root.get("method") == null) return false;
    const method = try doc.string(root, "method", 8);
    if (std.mem.eql(u8, method, "PUT")) return true;
    return if (std.mem.eql(u8, method, "POST")) false else doc.malformed("method is not POST or PUT", .{});
}

fn number(doc: Document, root: document.Object, name: []const u8, least: u64, most: u64, default: u64) error{Refused}!u64 {
    if (root.get(name) == null) return default;
    const value = try doc.integer(root, name, most);
    return if (value >= least) value else doc.malformed("{s} is below {d}", .{ name, least });
}

fn parseHeaders(arena: Allocator, doc: Document, root: document.Object, loopback: bool) refusals.Error![]const Header {
    if (root.get("headers") == null) return &.{};
    const object = try doc.objectField(root, "headers");
    if (object.count() > max_headers) return doc.malformed("more than {d} headers", .{max_headers});
    const headers = try arena.alloc(Header, object.count());
    for (headers, object.keys()) |*header, name| {
        if (!isToken(name)) return doc.malformed("{s} is no name of a header", .{name});
        if (contains(&own_headers, name)) return doc.malformed("the header {s} is the agent's own", .{name});
        if (contains(&secret_headers, name) and !loopback) {
            return doc.malformed("{s} would be readable on the way: this agent has no TLS; give it to localhost only", .{name});
        }
        const value = try doc.string(object, name, max_header_value);
        for (value) |byte| if (byte < ' ' or byte >= 0x7f) return doc.malformed("the value of the header {s} is not of printable ASCII", .{name});
        header.* = .{ .name = name, .value = value };
    }
    return headers;
}

/// Null where there is none. What S3 needs in it is S3's to say; here it only must be a form that can be sent.
fn parseForm(arena: Allocator, doc: Document, root: document.Object, loopback: bool) refusals.Error!?[]const Header {
    if (root.get("form") == null) return null;
    if (root.get("method") != null) return doc.malformed("a form is sent by POST; it goes with no method", .{});
    if (!loopback) return doc.malformed("a form's signature would be readable on the way: this agent has no TLS; give it to localhost only", .{});
    const object = try doc.objectField(root, "form");
    if (object.count() > max_form_fields) return doc.malformed("more than {d} fields in form", .{max_form_fields});
    const fields = try arena.alloc(Header, object.count());
    var keyed = false;
    for (fields, object.keys()) |*field, name| {
        if (!isToken(name) or std.mem.eql(u8, name, "file")) return doc.malformed("{s} cannot be a field of the form", .{name});
        const value = try doc.string(object, name, max_form_value);
        for (value) |byte| if (byte < ' ' or byte >= 0x7f) return doc.malformed("the form's field {s} is not of printable ASCII", .{name});
        if (std.mem.eql(u8, name, push_form.key_field)) keyed = std.mem.countScalar(u8, value, '$') == 1 and std.mem.find(u8, value, push_form.file_name_mark) != null;
        field.* = .{ .name = name, .value = value };
    }
    if (!keyed) return doc.malformed("form has no key with {s} in it, once", .{push_form.file_name_mark});
    return fields;
}

/// RFC 9110 section 5.6.2.
fn isToken(name: []const u8) bool {
    if (name.len == 0 or name.len > max_header_name) return false;
    for (name) |byte| if (!std.ascii.isAlphanumeric(byte) and std.mem.findScalar(u8, "!#$%&'*+-.^_`|~", byte) == null) return false;
    return true;
}

fn contains(list: []const []const u8, name: []const u8) bool {
    for (list) |it| if (std.ascii.eqlIgnoreCase(it, name)) return true;
    return false;
}

const testing = std.testing;

test "a configuration is read with what it does not say" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    const plain: Config = try .parse(arena.allocator(), &refusal, "{\"url\":\"http://h:8/a/b/\"}");
    try testing.expectEqualStrings("http://h:8/a/b", plain.url);
    try testing.expectEqual(.{ false, 0, 1 << 20, 60 }, .{ plain.put, plain.headers.len, plain.batch_bytes, plain.interval_s });
    const full: Config = try .parse(arena.allocator(), &refusal, "{\"url\":\"http://[::1]/\",\"method\":\"PUT\",\"headers\":{\"X-A\":\"b c\",\"Authorization\":\"t\"},\"batch_bytes\":1024,\"interval_s\":1}");
    try testing.expectEqual(.{ true, 2, 1024, 1 }, .{ full.put, full.headers.len, full.batch_bytes, full.interval_s });
    try testing.expectEqual(null, full.form);
    const form: Config = try .parse(arena.allocator(), &refusal, "{\"url\":\"http://localhost/b\",\"form\":{\"key\":\"in/${filename}\",\"x-amz-signature\":\"00\"}}");
    try testing.expectEqual(2, form.form.?.len);
}

test "what is none, or would give a secret away, is refused" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    for ([_][]const u8{
        "",
        "{}",
        "{\"url\":\"\"}",
        "{\"url\":\"h\"}",
        "{\"url\":\"https://h/\"}",
        "{\"url\":\"ftp://h/\"}",
        "{\"url\":\"http:///a\"}",
        "{\"url\":\"http://h/?a\"}",
        "{\"url\":\"http://h/#a\"}",
        "{\"url\":\"http://u:p@h/\"}",
        "{\"url\":\"http://h/a b\"}",
        "{\"url\":\"http://h/\\r\\nX: y\"}",
        "{\"url\":\"http://h\",\"method\":\"GET\"}",
        "{\"url\":\"http://h\",\"batch_bytes\":1023}",
        "{\"url\":\"http://h\",\"interval_s\":0}",
        "{\"url\":\"http://h\",\"speed\":1}",
        "{\"url\":\"http://h\",\"headers\":[]}",
        "{\"url\":\"http://h\",\"headers\":{\"a b\":\"c\"}}",
        "{\"url\":\"http://h\",\"headers\":{\"a\":\"c\\r\\nd\"}}",
        "{\"url\":\"http://h\",\"headers\":{\"Content-Length\":\"1\"}}",
        "{\"url\":\"http://h\",\"headers\":{\"authorization\":\"Bearer x\"}}",
        "{\"url\":\"http://h\",\"form\":{\"key\":\"${filename}\"}}",
        "{\"url\":\"http://localhost\",\"form\":{}}",
        "{\"url\":\"http://localhost\",\"form\":{\"key\":\"name\"}}",
        "{\"url\":\"http://localhost\",\"form\":{\"key\":\"${filename}${filename}\"}}",
        "{\"url\":\"http://localhost\",\"form\":{\"key\":\"${filename}\\r\\n\"}}",
        "{\"url\":\"http://localhost\",\"form\":{\"key\":\"${filename}\",\"a\\\"b\":\"c\"}}",
        "{\"url\":\"http://localhost\",\"form\":{\"key\":\"${filename}\",\"file\":\"c\"}}",
        "{\"url\":\"http://localhost\",\"method\":\"PUT\",\"form\":{\"key\":\"${filename}\"}}",
        "{\"url\":\"http://127.0.0.1.evil\",\"headers\":{\"Cookie\":\"x\"}}",
    }) |bad| {
        errdefer std.debug.print("{s}\n", .{bad});
        try testing.expectError(error.Refused, Config.parse(arena.allocator(), &refusal, bad));
    }
}
