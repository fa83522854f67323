//! Which start of the machine this is. Its clock may be wrong; this and the time since the start are not.

const std = @import("std");
const clock = @import("clock.zig");
const process_figures = @import("process_figures.zig");

pub const Id = [36]u8;

/// As the kernel made it up when it started; zeros where it does not tell.
pub fn id() Id {
    const unknown: Id = "00000000-0000-0000-0000-000000000000".*;
    var buffer: [64]u8 = undefined;
    const text = process_figures.readFile("/proc/sys/kernel/random/boot_id", &buffer) orelse return unknown;
    if (text.len < unknown.len) return unknown;
    for (text[0..unknown.len]) |byte| if (!std.ascii.isHex(byte) and byte != '-') return unknown;
    return text[0..unknown.len].*;
}

/// Since the machine started, sleep included.
pub fn milliseconds() u64 {
    return clock.nanosecondsOf(.BOOTTIME) / std.time.ns_per_ms;
}

/// Since 1970 by the clock as it is set.
pub fn wallMilliseconds() u64 {
    return clock.nanosecondsOf(.REALTIME) / std.time.ns_per_ms;
}
