//! How many threads a worker runs its model on.

const std = @import("std");
const abi = @import("abi.zig");
const linux = std.os.linux;

/// As many as the target profile has cores, but no more than this process may run on.
pub fn byDefault() u32 {
    const wanted = std.math.clamp(abi.ep_cores(abi.ep_model_get()), 1, abi.max_threads);
    if (wanted == 1) return 1;
    var set: linux.cpu_set_t = undefined;
    // Fails on a machine with more CPUs than the set has room for: there are enough of them.
    if (linux.errno(linux.sched_getaffinity(0, @sizeOf(linux.cpu_set_t), &set)) != .SUCCESS) return wanted;
    return @min(wanted, @max(1, @as(u32, @intCast(linux.CPU_COUNT(set)))));
}

/// A number from 1 to the most that a session takes, or null.
pub fn parse(argument: [*:0]const u8) ?u32 {
    const count = std.fmt.parseInt(u32, std.mem.span(argument), 10) catch return null;
    return if (count >= 1 and count <= abi.max_threads) count else null;
}
