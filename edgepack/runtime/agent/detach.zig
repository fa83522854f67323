//! `serve --detach`: the server becomes a daemon, and the command returns when it is ready.

const std = @import("std");
const linux = std.os.linux;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

pub const Role = union(enum) {
    /// The command that was started: the daemon is ready.
    command,
    /// The daemon; it writes to this when it is ready or has failed.
    daemon: Announcement,
};

pub const Announcement = struct {
    fd: linux.fd_t,

    pub fn ready(self: Announcement) void {
        _ = linux.close(self.fd);
    }

    pub fn failed(self: Announcement, refusal: *const Refusal) void {
        const reason = refusal.reason();
        _ = linux.write(self.fd, reason.ptr, reason.len);
        _ = linux.close(self.fd);
    }
};

/// Forks twice, so that the daemon leads no session and nobody has to wait for it. The command comes
/// back from here only when the daemon has announced itself, refused with the daemon's own reason.
pub fn split(refusal: *Refusal, log_path: [*:0]const u8) error{Refused}!Role {
    var fds: [2]linux.fd_t = undefined;
    if (failed(linux.pipe2(&fds, .{ .CLOEXEC = true }))) return refusal.because(.state, "no pipe", .{});
    const log = linux.open(log_path, .{ .ACCMODE = .WRONLY, .CREAT = true, .APPEND = true, .CLOEXEC = true }, 0o640);
    if (failed(log)) return refusal.because(.state, "cannot write {s}: {t}", .{ log_path, linux.errno(log) });
    const child = linux.fork();
    if (failed(child)) return refusal.because(.state, "cannot fork: {t}", .{linux.errno(child)});
    if (child == 0) {
        _ = linux.setsid();
        if (linux.fork() != 0) linux.exit_group(0); // where this fork fails the pipe closes unannounced
        redirect(@intCast(log));
        _ = linux.close(fds[0]);
        return .{ .daemon = .{ .fd = fds[1] } };
    }
    _ = linux.close(fds[1]);
    _ = linux.close(@intCast(log));
    var status: i32 = 0;
    while (linux.errno(linux.waitpid(@intCast(child), &status, 0)) == .INTR) {}
    defer _ = linux.close(fds[0]);
    try awaitAnnouncement(refusal, fds[0]);
    return .command;
}

/// The daemon closes the pipe when it is ready. One that dies closes it too; the caller asks the
/// socket to tell the two apart.
fn awaitAnnouncement(refusal: *Refusal, fd: linux.fd_t) error{Refused}!void {
    var buffer: [512]u8 = undefined;
    var len: usize = 0;
    while (len < buffer.len) {
        const count = linux.read(fd, buffer[len..].ptr, buffer.len - len);
        if (linux.errno(count) == .INTR) continue;
        if (failed(count) or count == 0) break;
        len += count;
    }
    if (len > 0) return refusal.because(.state, "{s}", .{buffer[0..len]});
}

fn redirect(log: linux.fd_t) void {
    const null_file = linux.open("/dev/null", .{ .ACCMODE = .RDWR, .CLOEXEC = true }, 0);
    if (!failed(null_file)) for ([_]linux.fd_t{ 0, 1 }) |fd| {
        _ = linux.dup2(@intCast(null_file), fd);
    };
    _ = linux.dup2(log, 2);
}

fn failed(result: usize) bool {
    return linux.errno(result) != .SUCCESS;
}
