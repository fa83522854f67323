//! The child between fork and exec: it takes its descriptors, is confined, and becomes the worker.
//!
//! The agent has threads, and whatever lock one of them held stays locked here for ever: system calls
//! only, no allocator, no lock, no way back.

const std = @import("std");
const cgroup = @import("cgroup.zig");
const confine = @import("confine.zig");
const linux = std.os.linux;

/// In the child. Standard error is the agent's own, see confine.zig.
const shared_fd = 3;
const weights_fd = 4;
const worker_fd = 5;
const lowest_free = 10;

/// What one child becomes. No descriptor but `worker` and `weights` is below `lowest_free`.
pub const Child = struct {
    /// Open files. Neither is found by its name, so none other can take its place after it was checked,
    /// and the worker needs no file system.
    worker: linux.fd_t,
    weights: linux.fd_t,
    requests: linux.fd_t,
    replies: linux.fd_t,
    shared: linux.fd_t,
    /// Carries a Trouble; a successful exec closes it.
    trouble: linux.fd_t,
    memory_bytes: u64,

    pub fn become(self: *const Child) noreturn {
        // Ctrl-C and a service manager signal whole groups; a worker leaves when we say so, after the
        // requests in flight. SIGKILL and the end of its stdin remain.
        var blocked = linux.sigemptyset();
        for ([_]linux.SIG{ .INT, .TERM, .HUP, .QUIT }) |signal| linux.sigaddset(&blocked, signal);
        _ = linux.sigprocmask(linux.SIG.SETMASK, &blocked, null);
        const trouble: Trouble = trouble: {
            if (!self.takeDescriptors()) break :trouble .{ .what = .descriptors, .errno = @backingInt(linux.E.BADF) };
            cgroup.enter(self.memory_bytes);
            const confined = confine.enter(worker_fd, self.memory_bytes);
            if (confined != .SUCCESS) break :trouble .{ .what = .confine, .errno = @backingInt(confined) };
            break :trouble .{ .what = .execute, .errno = @backingInt(execute()) };
        };
        _ = linux.write(self.trouble, std.mem.asBytes(&trouble), @sizeOf(Trouble));
        linux.exit_group(127);
    }

    fn takeDescriptors(self: *const Child) bool {
        const worker = duplicate(self.worker) orelse return false;
        const weights = duplicate(self.weights) orelse return false;
        inline for (.{ .{ self.requests, 0 }, .{ self.replies, 1 }, .{ self.shared, shared_fd }, .{ weights, weights_fd } }) |pair| {
            if (failed(linux.dup2(pair[0], pair[1]))) return false;
        }
        return !failed(linux.dup3(worker, worker_fd, close_on_exec));
    }
};

const close_on_exec = @as(u32, @bitCast(linux.O{ .CLOEXEC = true }));

/// Why there is no worker, for the agent.
pub const Trouble = extern struct { what: enum(u16) { descriptors, confine, execute }, errno: u16 };

fn execute() linux.E {
    const argv = [_:null]?[*:0]const u8{ "worker", "serve", std.fmt.comptimePrint("fd:{d}", .{weights_fd}), std.fmt.comptimePrint("fd:{d}", .{shared_fd}) };
    const envp = [_:null]?[*:0]const u8{};
    const cause = linux.errno(linux.execveat(worker_fd, "", &argv, &envp, .{ .SYMLINK_NOFOLLOW = false, .EMPTY_PATH = true }));
    if (cause != .NOSYS) return cause;
    // An emulator; it is read by the same name once more, after exec.
    _ = linux.fcntl(worker_fd, linux.F.SETFD, 0);
    return linux.errno(linux.execve(std.fmt.comptimePrint("/proc/self/fd/{d}", .{worker_fd}), &argv, &envp));
}

/// Under a number that does not collide with the child's own.
pub fn duplicate(fd: linux.fd_t) ?linux.fd_t {
    const result = linux.fcntl(fd, linux.F.DUPFD_CLOEXEC, lowest_free);
    return if (failed(result)) null else @intCast(result);
}

fn failed(result: usize) bool {
    return linux.errno(result) != .SUCCESS;
}
