//! Captures give way: an installation that lacks room takes theirs, the oldest first, of all models.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const disk = @import("disk.zig");
const format = @import("capture_format.zig");
const naming = @import("naming.zig");
const notify = @import("notify.zig");
const segments = @import("capture_segments.zig");
const Store = @import("store.zig").Store;

/// Deletes captures until `needed` bytes are free, or none are left. Whoever calls looks again.
pub fn makeRoom(arena: Allocator, store: *Store, needed: u64) void {
    const captures = store.root.openDir(store.io, format.folder, .{ .iterate = true }) catch return;
    defer captures.close(store.io);
    if (needed > (disk.freeBytes(store.root.handle) orelse return) +| bytesIn(store.io, captures)) return; // in vain
    // A server may have each model's newest open, and such a one frees nothing before it is closed.
    while (lacks(store, needed)) if (!removeOldest(store.io, captures, .but_newest)) break;
    if (!lacks(store, needed)) return;
    while (lacks(store, needed)) if (!removeOldest(store.io, captures, .any)) break;
    var entries = captures.iterate();
    while (entries.next(store.io) catch return) |entry| {
        if (!naming.isName(entry.name)) continue;
        const path = std.fmt.allocPrint(arena, "/v2/models/{s}/captures/sync", .{entry.name}) catch return;
        _ = notify.ask(arena, store.io, store.path, "POST", path) catch return;
    }
}

fn lacks(store: *Store, needed: u64) bool {
    return needed > disk.freeBytes(store.root.handle) orelse return false;
}

fn bytesIn(io: Io, captures: Io.Dir) u64 {
    var total: u64 = 0;
    var entries = captures.iterate();
    while (entries.next(io) catch return total) |entry| {
        if (!naming.isName(entry.name)) continue;
        const dir = captures.openDir(io, entry.name, .{ .iterate = true, .follow_symlinks = false }) catch continue;
        defer dir.close(io);
        total +|= segments.Survey.of(io, dir).bytes;
    }
    return total;
}

/// False where there is none.
fn removeOldest(io: Io, captures: Io.Dir, which: enum { but_newest, any }) bool {
    var found: ?segments.Segment = null;
    var name_buffer: [64]u8 = undefined;
    var name: []const u8 = "";
    var entries = captures.iterate();
    while (entries.next(io) catch null) |entry| {
        if (!naming.isName(entry.name)) continue;
        const dir = captures.openDir(io, entry.name, .{ .iterate = true, .follow_symlinks = false }) catch continue;
        defer dir.close(io);
        const survey: segments.Survey = .of(io, dir);
        const oldest = survey.oldest orelse continue;
        if (which == .but_newest and survey.count == 1) continue;
        if (found != null and found.?.written <= oldest.written) continue;
        found = oldest;
        @memcpy(name_buffer[0..entry.name.len], entry.name);
        name = name_buffer[0..entry.name.len];
    }
    const doomed = found orelse return false;
    const dir = captures.openDir(io, name, .{ .follow_symlinks = false }) catch return false;
    defer dir.close(io);
    segments.remove(io, dir, doomed.first) catch return false;
    return true;
}
