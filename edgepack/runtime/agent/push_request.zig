//! One batch of captures as one HTTP request, and what the server says to it.
//!
//! A connection for each, as web.zig has it. The time for a request is bounded: what a link of 1 KB/s takes,
//! and a minute.

const std = @import("std");
const Io = std.Io;
const clock = @import("clock.zig");
const Config = @import("push_config.zig").Config;
const http = @import("http.zig");
const push_form = @import("push_form.zig");
const Envelope = push_form.Envelope;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Run = @import("capture_reader.zig").Run;
const web_client = @import("web.zig");
const Web = web_client.Web;

pub const content_type = "application/vnd.edgepack.captures";
const silence_ms = 60_000;
const ms_per_kb = 1_000;
/// For an answer that comes before the request is through.
const last_words_ms = 2_000;
const max_interim = 4;
const max_path = 256;

pub const Target = struct { device: []const u8, model: []const u8 };

/// The status of the answer, 200 or above.
pub fn send(web: *Web, config: *const Config, target: Target, run: Run) refusals.Error!u16 {
    var path_buffer: [max_path]u8 = undefined;
    const path = std.fmt.bufPrint(&path_buffer, "{s}/{s}/{d:0>12}-{d:0>12}.epc", .{ target.device, target.model, run.first, run.last }) catch unreachable; // each part is bounded
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const form: ?Envelope = if (config.form) |fields| try push_form.envelope(arena.allocator(), fields, path, content_type) else null;
    var url_buffer: [1024 + max_path]u8 = undefined;
    const url = if (form != null) config.url else std.fmt.bufPrint(&url_buffer, "{s}/{s}", .{ config.url, path }) catch unreachable; // as above
    const uri = std.Uri.parse(url) catch return web.refusal.because(.source, "not a URL: {s}", .{url});
    try web.connect(uri);
    defer web.disconnect();
    web.connection.deadline = clock.milliseconds() + silence_ms + run.bytes / 1000 * ms_per_kb;
    const sent = if (write(web, config, uri, run, form)) true else |err| switch (err) {
        error.WriteFailed => false, // it may have answered before it heard all
        error.ReadFailed => return web.refusal.because(.disk, "captures of {s} cannot be read behind {d}", .{ target.model, run.first }),
    };
    web.connection.deadline = clock.milliseconds() + @as(u64, if (sent) silence_ms else last_words_ms);
    return status(web) catch |err| if (sent)
        web.refusal.because(.source, "{s} does not answer ({t})", .{ config.url, err })
    else
        web.refusal.because(.source, "{s} takes no more of a request", .{config.url});
}

fn write(web: *Web, config: *const Config, uri: std.Uri, run: Run, form: ?Envelope) error{ ReadFailed, WriteFailed }!void {
    const out = &web.connection.writer;
    try out.print("{s} {f} HTTP/1.1\r\nHost: {f}\r\nUser-Agent: edgepack-agent\r\nConnection: close\r\n", .{
        if (config.put) "PUT" else "POST",
        uri.fmt(.{ .path = true }),
        uri.fmt(.{ .authority = true, .port = true }),
    });
    for (config.headers) |header| try out.print("{s}: {s}\r\n", .{ header.name, header.value });
    if (form) |it| {
        const length = it.before.len + run.bytes + it.after.len;
        try out.print("Content-Type: multipart/form-data; boundary={s}\r\nContent-Length: {d}\r\n\r\n", .{ &it.boundary, length });
        try out.writeAll(it.before);
    } else {
        try out.print("Content-Type: " ++ content_type ++ "\r\nContent-Length: {d}\r\n\r\n", .{run.bytes});
    }
    try run.copyTo(web.io, out);
    if (form) |it| try out.writeAll(it.after);
    try out.flush();
}

fn status(web: *Web) !u16 {
    for (0..max_interim) |_| {
        const head = try http.receiveHead(&web.connection.reader);
        const response: web_client.Response = try .parse(head);
        if (response.status >= 200) return response.status;
    }
    return error.TooManyInterimAnswers;
}
