//! The paths about captures.
//!
//!     GET  /v2/models/NAME/captures          what there is of them, see capture_report.zig
//!     GET  /v2/models/NAME/captures/NUMBER   {"number":N,"state":STATE,"reason":TEXT|null}
//!     POST /v2/models/NAME/captures/reload   follows rules.json as it is now
//!     POST /v2/models/NAME/captures/sync     answers when all captures so far are on the disk
//!
//! States of a capture: "queued" for the disk; "kept" on it; "dropped", where the limits took it away;
//! "failed", where it never came there, with the reason as long as it is among the last 64; "lost", where
//! it is not there and nobody knows why, as after a power cut.

const std = @import("std");
const Writer = std.Io.Writer;
const Api = @import("endpoints.zig").Api;
const captures = @import("captures.zig");
const format = @import("capture_format.zig");
const Problem = @import("problem.zig").Problem;
const report = @import("capture_report.zig");
const Route = @import("route.zig").Route;
const segments = @import("capture_segments.zig");

pub fn write(out: *Writer, api: *Api, route: Route.Captures, problem: *Problem) (Writer.Error || error{Problem})!void {
    try checkKnown(api, route.name, problem);
    switch (route.what) {
        .status => try writeStatus(out, api, route.name, problem),
        .number => |number| try writeNumber(out, api, route.name, number, problem),
        .reload => {
            if (!api.captures.reload(route.name)) return slow(problem);
            try out.print("{{\"model\":\"{s}\"}}", .{route.name});
        },
        .sync => {
            if (!api.captures.settle()) return slow(problem);
            try out.print("{{\"model\":\"{s}\"}}", .{route.name});
        },
    }
}

fn slow(problem: *Problem) error{Problem} {
    return problem.because(.service_unavailable, "the captures are not on the disk yet", .{});
}

/// A model that is served, or whose captures are there.
fn checkKnown(api: *Api, name: []const u8, problem: *Problem) error{Problem}!void {
    var health: @import("models.zig").Models.Health = undefined;
    if (api.models.health(name, &health) != null) return;
    const dir = openFolder(api, name) orelse return problem.because(.not_found, "no model {s}", .{name});
    dir.close(api.models.store.io);
}

fn openFolder(api: *Api, name: []const u8) ?std.Io.Dir {
    var buffer: [format.folder.len + 1 + 64]u8 = undefined;
    const path = std.fmt.bufPrint(&buffer, format.folder ++ "/{s}", .{name}) catch unreachable; // isName()
    return api.models.store.root.openDir(api.models.store.io, path, .{ .iterate = true }) catch null;
}

fn writeStatus(out: *Writer, api: *Api, name: []const u8, problem: *Problem) (Writer.Error || error{Problem})!void {
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const store = api.models.store;
    const stored = report.Stored.read(arena.allocator(), store.io, store.root, name) catch
        return problem.because(.service_unavailable, "out of memory", .{});
    try stored.write(out, name, live(api.captures, name, stored.next));
}

fn live(all: *captures.Captures, name: []const u8, stored_next: u64) report.Live {
    all.lock.lock();
    defer all.lock.unlock();
    var it: report.Live = .{ .next = stored_next, .queued = 0, .written = 0, .dropped = 0, .failed = 0, .last_failure = null, .trouble = null };
    const model = all.find(name) orelse return it;
    if (model.end > 0) it.next = model.next;
    it.queued = model.queued;
    it.written = model.written;
    it.dropped = model.dropped;
    it.failed = model.failed;
    if (model.failures_seen > 0) it.last_failure = model.failures[@intCast((model.failures_seen - 1) % model.failures.len)].reason;
    if (model.phase == .broken) it.trouble = model.trouble;
    return it;
}

fn writeNumber(out: *Writer, api: *Api, name: []const u8, number: u64, problem: *Problem) (Writer.Error || error{Problem})!void {
    const state, const reason = try stateOf(api, name, number, problem);
    try out.print("{{\"number\":{d},\"state\":\"{t}\",\"reason\":", .{ number, state });
    if (reason) |it| try std.json.Stringify.encodeJsonString(it, .{}, out) else try out.writeAll("null");
    try out.writeByte('}');
}

const State = enum { queued, kept, dropped, failed, lost };

fn stateOf(api: *Api, name: []const u8, number: u64, problem: *Problem) error{Problem}!struct { State, ?[]const u8 } {
    if (memoryOf(api.captures, name, number)) |it| return it;
    const io = api.models.store.io;
    const dir = openFolder(api, name) orelse return problem.because(.not_found, "no capture {d}", .{number});
    defer dir.close(io);
    if (report.holds(io, dir, number)) return .{ .kept, null };
    const given = live(api.captures, name, @import("capture_folder.zig").readNext(io, dir) orelse 1).next;
    if (number == 0 or number >= given) return problem.because(.not_found, "no capture {d}; the next is {d}", .{ number, given });
    const oldest = segments.Survey.of(io, dir).oldest;
    return .{ if (oldest == null or number < oldest.?.first) .dropped else .lost, null };
}

fn memoryOf(all: *captures.Captures, name: []const u8, number: u64) ?struct { State, ?[]const u8 } {
    all.lock.lock();
    defer all.lock.unlock();
    const model = all.find(name) orelse return null;
    if (model.failure(number)) |reason| return .{ .failed, reason };
    if (number < model.next and number >= model.next - model.queued) return .{ .queued, null };
    return null;
}
