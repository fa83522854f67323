//! What the server may do on the device. Started as root, it becomes the user that --user names, or stays
//! root with two capabilities: to open the shared memory of its clients, and to listen at a port below 1024.
//!
//! Of the store it then may write run/ and the folders in captures/ that are there when it starts, and reads
//! the rest, which root's own commands write. Nothing within what belongs to the user is changed as root:
//! in a directory of its own it could put a link in our way.
//! All of this is done before there are threads, since the kernel gives each its own credentials.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const capture_format = @import("capture_format.zig");
const capture_id = @import("capture_id.zig");
const cgroup = @import("cgroup.zig");
const naming = @import("naming.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const sandbox = @import("sandbox");
const Store = @import("store.zig").Store;

const kept = (1 << linux.CAP.DAC_OVERRIDE) | (1 << linux.CAP.NET_BIND_SERVICE);
/// Behind the last capability that any kernel has; the first that it does not have ends the loop.
const max_capabilities = 64;
const max_passwd_bytes = 256 << 10;

pub const User = struct { uid: linux.uid_t, gid: linux.gid_t };

/// NAME of /etc/passwd, or UID, or UID:GID.
pub fn find(io: Io, refusal: *Refusal, text: []const u8) refusals.Error!User {
    if (parseNumbers(text)) |user| return user;
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const passwd = Io.Dir.cwd().readFileAlloc(io, "/etc/passwd", arena.allocator(), .limited(max_passwd_bytes)) catch |err|
        return refusal.because(.usage, "--user {s}: cannot read /etc/passwd: {t}; give UID:GID", .{ text, err });
    return findIn(passwd, text) orelse refusal.because(.usage, "--user {s}: no such user in /etc/passwd, and no UID:GID", .{text});
}

/// From here on the process has what the server needs, and gains no more.
pub fn drop(refusal: *Refusal, store: *Store, wanted: ?User) error{Refused}!void {
    sandbox.gainNothing();
    const user = wanted orelse return keepLittle(refusal);
    if (linux.geteuid() == user.uid) return if (user.uid == 0) keepLittle(refusal) else {};
    if (linux.geteuid() != 0) return refusal.because(.state, "only root can become user {d}; start serve as that user, or as root", .{user.uid});
    try expect(refusal, "give it run/", linux.fchownat(store.root.handle, "run", user.uid, user.gid, linux.AT.SYMLINK_NOFOLLOW));
    try giveCaptures(refusal, store, user);
    cgroup.give(user.uid, user.gid);
    for (0..max_capabilities) |capability| {
        if (linux.errno(linux.prctl(@backingInt(linux.PR.CAPBSET_DROP), capability, 0, 0, 0)) != .SUCCESS) break;
    }
    try expect(refusal, "leave root's groups", linux.setgroups(0, &.{}));
    try expect(refusal, "take its group", linux.setresgid(user.gid, user.gid, user.gid));
    try expect(refusal, "take its number", linux.setresuid(user.uid, user.uid, user.uid));
    if (linux.geteuid() != user.uid or linux.errno(linux.setresuid(0, 0, 0)) == .SUCCESS) {
        return refusal.because(.state, "cannot become user {d}: the kernel let root back in", .{user.uid});
    }
    // So that /proc/self stays ours to read, for the metrics.
    _ = linux.prctl(@backingInt(linux.PR.SET_DUMPABLE), 1, 0, 0, 0);
    removeLeftovers(store);
}

/// The folder captures/ itself stays root's, who alone makes and moves what is in it; its group may enter.
fn giveCaptures(refusal: *Refusal, store: *Store, user: User) error{Refused}!void {
    const captures = store.root.openDir(store.io, capture_format.folder, .{ .iterate = true, .follow_symlinks = false }) catch return;
    defer captures.close(store.io);
    _ = capture_id.get(store.io, captures) catch {}; // whom it is told later says what is wrong
    const owner_stays: linux.uid_t = std.math.maxInt(linux.uid_t);
    try expect(refusal, "let its group into captures/", linux.fchown(captures.handle, owner_stays, user.gid));
    var entries = captures.iterate();
    while (entries.next(store.io) catch null) |entry| {
        if (entry.kind != .directory or !naming.isName(entry.name)) continue;
        var name: [65]u8 = @splat(0); // isName() lets 64 bytes through
        @memcpy(name[0..entry.name.len], entry.name);
        const given = linux.fchownat(captures.handle, @ptrCast(&name), user.uid, user.gid, linux.AT.SYMLINK_NOFOLLOW);
        try expect(refusal, "give it captures/", given);
    }
}

/// Files of run/ that a server of another user left cannot be written, but in our own directory removed.
fn removeLeftovers(store: *Store) void {
    for ([_][]const u8{ "run/agent.log", "run/serve.lock" }) |path| {
        store.root.access(store.io, path, .{ .write = true }) catch |err| switch (err) {
            error.AccessDenied, error.PermissionDenied => store.root.deleteFile(store.io, path) catch {},
            else => {},
        };
    }
}

fn keepLittle(refusal: *Refusal) error{Refused}!void {
    if (linux.geteuid() != 0) return; // has none
    var header: Header = .{};
    var held: [2]Capabilities = @splat(.{});
    try expect(refusal, "read capabilities", linux.syscall2(.capget, @intFromPtr(&header), @intFromPtr(&held)));
    held = .{ .{ .effective = kept & held[0].permitted, .permitted = kept & held[0].permitted }, .{} };
    try expect(refusal, "give capabilities up", linux.syscall2(.capset, @intFromPtr(&header), @intFromPtr(&held)));
}

/// `struct __user_cap_header_struct` and `struct __user_cap_data_struct`, version 3.
const Header = extern struct { version: u32 = 0x20080522, pid: i32 = 0 };
const Capabilities = extern struct { effective: u32 = 0, permitted: u32 = 0, inheritable: u32 = 0 };

/// No right is left to whatever this process executes.
pub fn keepNothing() void {
    const header: Header = .{};
    const nothing: [2]Capabilities = @splat(.{});
    _ = linux.syscall2(.capset, @intFromPtr(&header), @intFromPtr(&nothing));
}

fn expect(refusal: *Refusal, what: []const u8, result: usize) error{Refused}!void {
    const errno = linux.errno(result);
    if (errno != .SUCCESS) return refusal.because(.state, "cannot give up root: {s}: {t}", .{ what, errno });
}

fn parseNumbers(text: []const u8) ?User {
    var words = std.mem.splitScalar(u8, text, ':');
    const uid = parseId(words.next().?) orelse return null;
    const gid = if (words.next()) |word| parseId(word) orelse return null else uid;
    return if (words.next() == null) .{ .uid = uid, .gid = gid } else null;
}

/// Not -1, which the kernel takes for "as it is".
fn parseId(text: []const u8) ?u32 {
    if (text.len == 0 or !std.ascii.isDigit(text[0])) return null;
    const id = std.fmt.parseInt(u32, text, 10) catch return null;
    return if (id != std.math.maxInt(u32)) id else null;
}

/// Lines are NAME:PASSWORD:UID:GID:...
fn findIn(passwd: []const u8, name: []const u8) ?User {
    var lines = std.mem.splitScalar(u8, passwd, '\n');
    while (lines.next()) |line| {
        var fields = std.mem.splitScalar(u8, line, ':');
        if (name.len == 0 or !std.mem.eql(u8, fields.first(), name)) continue;
        _ = fields.next();
        const uid = parseId(fields.next() orelse return null) orelse return null;
        const gid = parseId(fields.next() orelse return null) orelse return null;
        return .{ .uid = uid, .gid = gid };
    }
    return null;
}

test "users are found by number and by name" {
    const testing = std.testing;
    try testing.expectEqual(User{ .uid = 12, .gid = 12 }, parseNumbers("12").?);
    try testing.expectEqual(User{ .uid = 12, .gid = 0 }, parseNumbers("12:0").?);
    for ([_][]const u8{ "", "x", "1:", ":1", "1:2:3", "-1", "4294967295", "4294967296", "+1", "1 " }) |bad| {
        try testing.expectEqual(null, parseNumbers(bad));
    }
    const passwd = "root:x:0:0:root:/root:/bin/sh\nedge:x:990:991::/:/bin/false\nbroken:x\nlast:x:5:6";
    try testing.expectEqual(User{ .uid = 990, .gid = 991 }, findIn(passwd, "edge").?);
    try testing.expectEqual(User{ .uid = 5, .gid = 6 }, findIn(passwd, "last").?);
    for ([_][]const u8{ "", "ed", "edge:x", "broken", "x" }) |absent| try testing.expectEqual(null, findIn(passwd, absent));
}
