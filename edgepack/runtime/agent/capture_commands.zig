//! `edgepack-agent capture set NAME RULES | off NAME | status [NAME] | list | read NAME | push`.
//!
//! set and off print {"ok":true,"model":NAME,"serving":BOOL}: whether a server follows the rules already.
//! status prints one model's object (capture_report.zig), or {"models":[those]} of all that are installed
//! or have captures. list and read are in capture_output.zig, push in capture_push.zig.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const capture_push = @import("capture_push.zig");
const capture_rules = @import("capture_rules.zig");
const Rules = capture_rules.Rules;
const format = @import("capture_format.zig");
const ModelInfo = @import("model_info.zig").ModelInfo;
const naming = @import("naming.zig");
const notify = @import("notify.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const replace = @import("replace.zig").replace;
const output = @import("capture_output.zig");
const report = @import("capture_report.zig");
const Store = @import("store.zig").Store;

pub const Error = refusals.Error || Io.Writer.Error;
const max_model_json = 4 << 20;

pub const Command = union(enum) {
    set: struct { name: []const u8, rules: []const u8 },
    off: []const u8,
    status: ?[]const u8,
    list,
    read: output.Wanted,
    push,

    pub fn parse(refusal: *Refusal, words: []const []const u8) error{Refused}!Command {
        const verb = std.meta.stringToEnum(std.meta.Tag(Command), words[0]) orelse
            return refusal.because(.usage, "capture takes set, off, status, list, read and push, not {s}", .{words[0]});
        const count: [2]usize = switch (verb) {
            .set => .{ 3, 3 },
            .off => .{ 2, 2 },
            .status => .{ 1, 2 },
            .list, .push => .{ 1, 1 },
            .read => .{ 2, 6 },
        };
        if (words.len < count[0]) return refusal.because(.usage, "capture {t} needs {s}", .{ verb, if (verb == .set) "a model and its rules" else "a model" });
        if (words.len > count[1]) return refusal.because(.usage, "capture {t}: too many arguments", .{verb});
        if (words.len > 1 and !naming.isName(words[1])) return refusal.because(.usage, "{s} is no name of a model", .{words[1]});
        return switch (verb) {
            .set => .{ .set = .{ .name = words[1], .rules = words[2] } },
            .off => .{ .off = words[1] },
            .status => .{ .status = if (words.len > 1) words[1] else null },
            .list => .list,
            .push => .push,
            .read => .{ .read = try .parse(refusal, words[1..]) },
        };
    }
};

pub fn run(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, command: Command, out: *Io.Writer) Error!void {
    var store: Store = try .open(io, refusal, root);
    switch (command) {
        .set => |it| try set(arena, &store, it.name, it.rules, out),
        .off => |name| try set(arena, &store, name, "{\"off\":true}", out),
        .status => |name| try status(arena, &store, name, out),
        .list => try output.list(arena, io, refusal, root, out),
        .push => try capture_push.once(arena, io, refusal, root, out),
        .read => |wanted| try output.read(io, refusal, root, wanted, out),
    }
}

fn set(arena: Allocator, store: *Store, name: []const u8, text: []const u8, out: *Io.Writer) Error!void {
    const refusal = store.refusal;
    const rules: Rules = try .parse(arena, refusal, text);
    const state = try store.load(arena, name);
    const current = (if (state) |it| it.current else null) orelse
        return refusal.because(.state, "no version of {s} is installed", .{name});
    try checkOutputs(arena, store, &rules, current.digests.get(.metadata));
    try store.lock(arena);
    write(store, name, text) catch |err| return refusal.because(.disk, "cannot write captures/{s}/" ++ capture_rules.file_name ++ ": {t}", .{ name, err });
    try out.print("{{\"ok\":true,\"model\":\"{s}\",\"serving\":{}}}\n", .{ name, try tellServer(arena, store, name) });
}

fn checkOutputs(arena: Allocator, store: *Store, rules: *const Rules, hex: naming.Hex) refusals.Error!void {
    var blob = try store.find(hex, null) orelse return store.refusal.because(.state, "blob {s} is missing", .{hex[0..16]});
    defer blob.close(store.io);
    if (blob.size > max_model_json) return store.refusal.because(.state, "model.json of more than {d} bytes", .{max_model_json});
    const info: ModelInfo = try .parse(arena, store.refusal, try blob.readAll(arena, store.io, store.refusal));
    const unknown = rules.unknownOutput(info.outputs) orelse return;
    return store.refusal.because(.usage, "the model has no output \"{s}\"; the first is \"{s}\"", .{ unknown, info.outputs[0].name });
}

fn write(store: *Store, name: []const u8, text: []const u8) !void {
    const captures = try makeDir(store.io, store.root, format.folder);
    defer captures.close(store.io);
    const dir = try makeDir(store.io, captures, name);
    defer dir.close(store.io);
    try replace(store.io, dir, capture_rules.file_name, text);
}

fn makeDir(io: Io, parent: Io.Dir, name: []const u8) !Io.Dir {
    parent.createDir(io, name, .fromMode(0o750)) catch |err| if (err != error.PathAlreadyExists) return err;
    return parent.openDir(io, name, .{ .iterate = true, .follow_symlinks = false });
}

/// False where none runs; it reads the rules when it starts.
fn tellServer(arena: Allocator, store: *Store, name: []const u8) refusals.Error!bool {
    const path = try std.fmt.allocPrint(arena, "/v2/models/{s}/captures/reload", .{name});
    const answer = notify.ask(arena, store.io, store.path, "POST", path) catch |err| switch (err) {
        error.NotRunning => return false,
        error.OutOfMemory => return error.OutOfMemory,
        else => return store.refusal.because(.worker, "the running server did not answer when told of the rules: {t}", .{err}),
    };
    if (answer.status == 200) return true;
    return store.refusal.because(.worker, "the running server does not follow the rules: {s} ({d})", .{ notify.errorText(arena, answer.body), answer.status });
}

fn status(arena: Allocator, store: *Store, requested: ?[]const u8, out: *Io.Writer) Error!void {
    if (requested) |name| {
        try statusOf(arena, store, name, out);
        return out.writeByte('\n');
    }
    try out.writeAll("{\"models\":[");
    const installed = try store.modelNames(arena);
    for (installed, 0..) |name, index| {
        if (index > 0) try out.writeByte(',');
        try statusOf(arena, store, name, out);
    }
    var written = installed.len;
    for (try foldersBeside(arena, store, installed)) |name| {
        if (written > 0) try out.writeByte(',');
        try statusOf(arena, store, name, out);
        written += 1;
    }
    try out.writeAll("]}\n");
}

/// Models that are not installed any more.
fn foldersBeside(arena: Allocator, store: *Store, installed: []const []const u8) refusals.Error![]const []const u8 {
    var found: std.ArrayList([]const u8) = .empty;
    const captures = store.root.openDir(store.io, format.folder, .{ .iterate = true }) catch return found.items;
    defer captures.close(store.io);
    var entries = captures.iterate();
    while (entries.next(store.io) catch null) |entry| {
        if (entry.kind == .file or !naming.isName(entry.name)) continue;
        for (installed) |name| {
            if (std.mem.eql(u8, name, entry.name)) break;
        } else try found.append(arena, try arena.dupe(u8, entry.name));
        if (found.items.len == 256) break; // as many as models may be
    }
    return found.items;
}

fn statusOf(arena: Allocator, store: *Store, name: []const u8, out: *Io.Writer) Error!void {
    const path = try std.fmt.allocPrint(arena, "/v2/models/{s}/captures", .{name});
    if (notify.ask(arena, store.io, store.path, "GET", path)) |answer| {
        const whole = answer.status == 200 and std.mem.startsWith(u8, answer.body, "{") and std.mem.endsWith(u8, answer.body, "}");
        if (whole and std.mem.findScalar(u8, answer.body, '\n') == null) return out.writeAll(answer.body);
    } else |_| {}
    const stored: report.Stored = try .read(arena, store.io, store.root, name);
    try stored.write(out, name, null);
}

test "capture takes its own arguments only" {
    const testing = std.testing;
    var refusal: Refusal = .{};
    try testing.expectEqualStrings("{}", (try Command.parse(&refusal, &.{ "set", "m", "{}" })).set.rules);
    try testing.expectEqualStrings("m", (try Command.parse(&refusal, &.{ "off", "m" })).off);
    try testing.expectEqual(null, (try Command.parse(&refusal, &.{"status"})).status);
    try testing.expectEqualStrings("m", (try Command.parse(&refusal, &.{ "status", "m" })).status.?);
    try testing.expectEqual(.list, std.meta.activeTag(try Command.parse(&refusal, &.{"list"})));
    const wanted = (try Command.parse(&refusal, &.{ "read", "m", "--max-bytes", "9", "--after", "18446744073709551615" })).read;
    try testing.expectEqual(.{ std.math.maxInt(u64), 9 }, .{ wanted.after, wanted.max_bytes });
    for ([_][]const []const u8{
        &.{"read"},       &.{ "read", "--after" },  &.{ "read", "m", "--after" }, &.{ "read", "m", "--after", "-1" }, &.{ "read", "m", "--x", "1" }, &.{ "list", "m" },
        &.{"on"},         &.{"set"},                &.{ "set", "m" },             &.{ "set", "../m", "{}" },          &.{ "set", "m", "{}", "x" },   &.{"off"},
        &.{ "off", "M" }, &.{ "status", "m", "n" },
    }) |words| try testing.expectError(error.Refused, Command.parse(&refusal, words));
}
