//! Time that never jumps, and waits that end.

const std = @import("std");
const linux = std.os.linux;

/// Since some moment in the past, by CLOCK_MONOTONIC.
pub fn milliseconds() u64 {
    return nanoseconds() / std.time.ns_per_ms;
}

/// The same, finer.
pub fn nanoseconds() u64 {
    return nanosecondsOf(.MONOTONIC);
}

/// By a clock that the caller names; 0 where it stands before its own beginning.
pub fn nanosecondsOf(id: linux.clockid_t) u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(id, &time);
    if (time.sec < 0) return 0;
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// True once one of `fds` is ready; false where none was by `deadline`, or poll itself fails.
pub fn poll(fds: []linux.pollfd, deadline: u64) bool {
    while (true) {
        const left = deadline -| milliseconds();
        const count = linux.poll(fds.ptr, @intCast(fds.len), @intCast(@min(left, std.math.maxInt(i32))));
        switch (linux.errno(count)) {
            .SUCCESS => if (count > 0) return true,
            .INTR => continue,
            else => return false,
        }
        if (left == 0) return false;
    }
}
