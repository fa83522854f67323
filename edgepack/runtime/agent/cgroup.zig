//! A control group for each worker, where the agent has one of cgroup v2 to itself, as in a systemd unit with
//! Delegate=. The agent moves into a group within it, `agent`, and each worker into `worker-PID` beside that,
//! since only a group without processes of its own may limit those below it. A server that becomes another user
//! is given the group first.
//!
//! It bounds what the other limits (confine.zig) do not: how many threads there are, and the memory that the
//! kernel itself spends on a worker. Where there is no such group all goes on without.
//! Linux, Documentation/admin-guide/cgroup-v2.rst.

const std = @import("std");
const linux = std.os.linux;

const mount_point = "/sys/fs/cgroup";
const agents = "agent";
const max_text = 4096;
/// edgepack.h's EP_MAX_THREADS, and a few.
const max_threads = 72;
/// For page tables, kernel stacks and pipes.
const kernel_bytes = 8 << 20;

/// The agent's group; set once, before there are threads.
var own: ?linux.fd_t = null;

/// True where workers get groups from now on.
pub fn begin() bool {
    const dir = findOwn() orelse return false;
    own = if (split(dir)) dir else null;
    if (own == null) _ = linux.close(dir);
    return own != null;
}

/// Root hands its group to the user that it is about to become; where there is none, begin() says so.
pub fn give(uid: linux.uid_t, gid: linux.gid_t) void {
    const dir = findOwn() orelse return;
    defer _ = linux.close(dir);
    _ = linux.unlinkat(dir, agents, linux.AT.REMOVEDIR); // root's own, of a server before
    for ([_][*:0]const u8{ ".", "cgroup.procs", "cgroup.subtree_control" }) |path| {
        _ = linux.fchownat(dir, path, uid, gid, linux.AT.SYMLINK_NOFOLLOW);
    }
}

/// Moves this process, a child before exec: what the kernel spent on it until then stays with the agent's
/// group, and so would all that it takes before another process had moved it. System calls only.
pub fn enter(memory_bytes: u64) void {
    const parent = own orelse return;
    var name: Name = .of(linux.getpid());
    _ = linux.mkdirat(parent, name.group(), 0o755);
    var number: [24]u8 = undefined;
    _ = write(parent, name.file("memory.max"), std.fmt.bufPrint(&number, "{d}", .{memory_bytes +| kernel_bytes}) catch unreachable); // 20 digits
    _ = write(parent, name.file("pids.max"), std.fmt.comptimePrint("{d}", .{max_threads}));
    _ = write(parent, name.file("cgroup.procs"), "0");
}

/// Removes the group of a worker that has been reaped.
pub fn release(pid: linux.pid_t) void {
    var name: Name = .of(pid);
    _ = linux.unlinkat(own orelse return, name.group(), linux.AT.REMOVEDIR);
}

const Name = struct {
    pid: linux.pid_t,
    buffer: [64]u8 = undefined,

    fn of(pid: linux.pid_t) Name {
        return .{ .pid = pid };
    }

    fn group(self: *Name) [*:0]const u8 {
        return std.fmt.bufPrintSentinel(&self.buffer, "worker-{d}", .{self.pid}, 0) catch unreachable; // 17 bytes
    }

    fn file(self: *Name, comptime name: []const u8) [*:0]const u8 {
        return std.fmt.bufPrintSentinel(&self.buffer, "worker-{d}/" ++ name, .{self.pid}, 0) catch unreachable; // 32 bytes
    }
};

/// Null unless this process is the only one in its group: to rearrange what others are in is not ours.
fn findOwn() ?linux.fd_t {
    var text: [max_text]u8 = undefined;
    const path = unified(read(linux.AT.FDCWD, "/proc/self/cgroup", &text) orelse return null) orelse return null;
    var path_buffer: [linux.PATH_MAX]u8 = undefined;
    const full = std.fmt.bufPrintSentinel(&path_buffer, mount_point ++ "{s}", .{path}, 0) catch return null;
    const opened = linux.open(full, .{ .ACCMODE = .RDONLY, .DIRECTORY = true, .CLOEXEC = true }, 0);
    if (failed(opened)) return null;
    const dir: linux.fd_t = @intCast(opened);
    if (isAlone(dir)) return dir;
    _ = linux.close(dir);
    return null;
}

fn isAlone(dir: linux.fd_t) bool {
    var text: [max_text]u8 = undefined;
    const processes = std.mem.trim(u8, read(dir, "cgroup.procs", &text) orelse return false, "\n");
    return (std.fmt.parseInt(linux.pid_t, processes, 10) catch return false) == linux.getpid();
}

fn split(dir: linux.fd_t) bool {
    _ = linux.mkdirat(dir, agents, 0o755); // it may be there: of a server before
    if (!write(dir, agents ++ "/cgroup.procs", "0")) return false;
    var any = false;
    for ([_][]const u8{ "+memory", "+pids" }) |controller| any = write(dir, "cgroup.subtree_control", controller) or any;
    return any;
}

/// The path on the line `0::PATH`.
fn unified(text: []const u8) ?[]const u8 {
    var lines = std.mem.tokenizeScalar(u8, text, '\n');
    while (lines.next()) |line| if (std.mem.startsWith(u8, line, "0::/")) return line[3..];
    return null;
}

/// What fits; null where that is not all.
fn read(dir: linux.fd_t, path: [*:0]const u8, into: []u8) ?[]const u8 {
    const opened = linux.openat(dir, path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0);
    if (failed(opened)) return null;
    defer _ = linux.close(@intCast(opened));
    const count = linux.read(@intCast(opened), into.ptr, into.len);
    return if (failed(count) or count == into.len) null else into[0..count];
}

fn write(dir: linux.fd_t, path: [*:0]const u8, text: []const u8) bool {
    const opened = linux.openat(dir, path, .{ .ACCMODE = .WRONLY, .CLOEXEC = true }, 0);
    if (failed(opened)) return false;
    defer _ = linux.close(@intCast(opened));
    return linux.write(@intCast(opened), text.ptr, text.len) == text.len;
}

fn failed(result: usize) bool {
    return linux.errno(result) != .SUCCESS;
}

test "the group of version 2 is found among those of version 1" {
    const mixed = "9:name=systemd:/a\n4:memory:/process_api/991e\n0::/system.slice/edgepack-agent.service\n";
    try std.testing.expectEqualStrings("/system.slice/edgepack-agent.service", unified(mixed).?);
    try std.testing.expectEqual(null, unified("9:name=systemd:/a\n"));
    try std.testing.expectEqual(null, unified("0::\n"));
}

test "names of groups and their files" {
    var name: Name = .of(std.math.maxInt(linux.pid_t));
    try std.testing.expectEqualStrings("worker-2147483647", std.mem.span(name.group()));
    try std.testing.expectEqualStrings("worker-2147483647/cgroup.procs", std.mem.span(name.file("cgroup.procs")));
}
