//! What wakes the server's threads: signals, read from a descriptor, and events of their own.

const std = @import("std");
const linux = std.os.linux;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

/// Blocked in every thread, since threads inherit the mask, and read from a descriptor instead. A
/// reader of our stderr that went away must not end us, nor a file that may not grow.
pub fn take(refusal: *Refusal) error{Refused}!linux.fd_t {
    var mask = linux.sigemptyset();
    for ([_]linux.SIG{ .TERM, .INT }) |signal| linux.sigaddset(&mask, signal);
    _ = linux.sigprocmask(linux.SIG.BLOCK, &mask, null);
    const ignore: linux.Sigaction = .{ .handler = .{ .handler = linux.SIG.IGN }, .mask = linux.sigemptyset(), .flags = 0 };
    for ([_]linux.SIG{ .PIPE, .XFSZ }) |signal| _ = linux.sigaction(signal, &ignore, null);
    const result = linux.signalfd(-1, &mask, linux.SFD.CLOEXEC);
    if (linux.errno(result) != .SUCCESS) return refusal.because(.state, "no signalfd: {t}", .{linux.errno(result)});
    return @intCast(result);
}

pub fn event(refusal: *Refusal) error{Refused}!linux.fd_t {
    const result = linux.eventfd(0, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK);
    if (linux.errno(result) != .SUCCESS) return refusal.because(.state, "no eventfd: {t}", .{linux.errno(result)});
    return @intCast(result);
}

pub fn announce(fd: linux.fd_t) void {
    const one: u64 = 1;
    _ = linux.write(fd, std.mem.asBytes(&one), @sizeOf(u64));
}
