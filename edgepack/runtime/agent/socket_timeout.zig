//! A bound on how long the other side of a socket may say nothing.

const std = @import("std");

/// What SO_RCVTIMEO and SO_SNDTIMEO (the old ones) take: two words of the machine's width.
const Timeval = extern struct { seconds: isize, microseconds: isize };

/// From now on a read or write that waits so long for a single byte fails (EAGAIN).
pub fn set(socket: std.posix.fd_t, seconds: isize) void {
    const limit: Timeval = .{ .seconds = seconds, .microseconds = 0 };
    for ([_]u32{ std.posix.SO.RCVTIMEO, std.posix.SO.SNDTIMEO }) |option| {
        // A socket that takes no timeout works, only more patiently.
        std.posix.setsockopt(socket, std.posix.SOL.SOCKET, option, std.mem.asBytes(&limit)) catch {};
    }
}
