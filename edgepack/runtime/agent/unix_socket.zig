//! The server's end of a Unix socket: one server at a path, nobody else's remains in the way.

const std = @import("std");
const linux = std.os.linux;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

const backlog = 64;
/// Owner and group may connect; the group is how an application is let in.
const mode_mask = 0o117;

/// Listens at `path`, non-blocking. A socket file that nobody listens on is removed; one that answers
/// is a refusal.
pub fn listen(refusal: *Refusal, path: []const u8) error{Refused}!linux.fd_t {
    const address = addressOf(path) orelse
        return refusal.because(.usage, "the socket's path is longer than 107 bytes: {s}; another one is taken with --socket", .{path});
    const fd = try open(refusal);
    errdefer _ = linux.close(fd);
    if (answers(refusal, &address)) return refusal.because(.state, "another server is at {s}", .{path});
    _ = linux.unlink(@ptrCast(&address.path));
    const old_mask = linux.syscall1(.umask, mode_mask);
    const bound = linux.bind(fd, @ptrCast(&address), @sizeOf(linux.sockaddr.un));
    _ = linux.syscall1(.umask, old_mask);
    if (linux.errno(bound) != .SUCCESS) return refusal.because(.state, "cannot make the socket {s}: {t}", .{ path, linux.errno(bound) });
    const listening = linux.listen(fd, backlog);
    if (linux.errno(listening) != .SUCCESS) return refusal.because(.state, "cannot listen at {s}: {t}", .{ path, linux.errno(listening) });
    return fd;
}

/// Whether somebody listens at `path`.
pub fn isServed(refusal: *Refusal, path: []const u8) bool {
    const address = addressOf(path) orelse return false;
    return answers(refusal, &address);
}

pub fn remove(path: []const u8) void {
    const address = addressOf(path) orelse return;
    _ = linux.unlink(@ptrCast(&address.path));
}

/// The next connection, non-blocking; null where there is none.
pub fn accept(listener: linux.fd_t) ?linux.fd_t {
    const result = linux.accept4(listener, null, null, linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK);
    return if (linux.errno(result) == .SUCCESS) @intCast(result) else null;
}

/// The user whose process connected, as the kernel noted it then.
pub fn peerUser(fd: linux.fd_t) ?linux.uid_t {
    var credentials: extern struct { pid: linux.pid_t, uid: linux.uid_t, gid: linux.gid_t } = undefined;
    var len: linux.socklen_t = @sizeOf(@TypeOf(credentials));
    const result = linux.getsockopt(fd, linux.SOL.SOCKET, linux.SO.PEERCRED, std.mem.asBytes(&credentials), &len);
    return if (linux.errno(result) == .SUCCESS and len == @sizeOf(@TypeOf(credentials))) credentials.uid else null;
}

fn answers(refusal: *Refusal, address: *const linux.sockaddr.un) bool {
    const fd = open(refusal) catch return false;
    defer _ = linux.close(fd);
    // EAGAIN: its backlog is full, so there is one.
    return switch (linux.errno(linux.connect(fd, address, @sizeOf(linux.sockaddr.un)))) {
        .SUCCESS, .AGAIN => true,
        else => false,
    };
}

fn open(refusal: *Refusal) error{Refused}!linux.fd_t {
    const result = linux.socket(linux.AF.UNIX, linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK, 0);
    if (linux.errno(result) != .SUCCESS) return refusal.because(.state, "no socket: {t}", .{linux.errno(result)});
    return @intCast(result);
}

fn addressOf(path: []const u8) ?linux.sockaddr.un {
    var address: linux.sockaddr.un = .{ .path = @splat(0) };
    if (path.len >= address.path.len) return null;
    @memcpy(address.path[0..path.len], path);
    return address;
}
