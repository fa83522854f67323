//! What `edgepack bench` asks a worker beyond running the model: the time of each call, the core's
//! peak, the memory that it took. A worker that nobody asks pays nothing for it.

const std = @import("std");
const abi = @import("abi.zig");
const linux = std.os.linux;

/// The best of this many calls of the peak kernel counts: others may use the machine meanwhile.
const peak_repeats = 40;

/// Nanoseconds of the monotonic clock.
pub fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// The times at which the calls of one run ended.
const Observed = struct {
    times: []u64,
    filled: usize = 0,

    fn ended(context: *anyopaque) callconv(.c) void {
        const self: *Observed = @ptrCast(@alignCast(context));
        if (self.filled == self.times.len) return;
        self.times[self.filled] = now();
        self.filled += 1;
    }
};

/// Runs the model and leaves in `times`, one for each call of the plan, how long each took in nanoseconds.
pub fn runObserved(session: *abi.Session, inputs: [*]const [*]const u8, outputs: [*]const [*]u8, times: []u64) c_int {
    var observed: Observed = .{ .times = times };
    var before = now();
    const status = abi.ep_run_observed(session, inputs, outputs, Observed.ended, &observed);
    for (times[0..observed.filled]) |*time| {
        const end = time.*;
        time.* = end - before;
        before = end;
    }
    return status;
}

/// Multiply-adds of one core in FLOP/s, as the kernel that was compiled for it measures them; 0: it cannot.
pub fn peak() u64 {
    const model = abi.ep_model_get();
    const flops = abi.ep_peak_flops(model);
    if (flops == 0) return 0;
    var best: u64 = std.math.maxInt(u64);
    for (0..peak_repeats) |_| {
        const started = now();
        if (abi.ep_run_peak(model) != 0) return 0;
        best = @min(best, @max(1, now() - started));
    }
    return @intCast(@as(u128, flops) * std.time.ns_per_s / best);
}

/// Files of /proc/self, open since before the worker gave up opening any; -1 where there are none.
var status_file: i32 = -1;
var rollup_file: i32 = -1;

pub fn openCounters() void {
    status_file = open("/proc/self/status");
    rollup_file = open("/proc/self/smaps_rollup");
}

fn open(path: [*:0]const u8) i32 {
    const opened = linux.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0);
    return if (linux.errno(opened) == .SUCCESS) @intCast(opened) else -1;
}

/// The largest resident memory so far in bytes; 0 where /proc does not tell.
///
/// VmHWM is what the kernel counted, but since Linux 6.2 its counters run behind by some pages for each
/// CPU. Rss of smaps_rollup walks the page tables: exact, and here the peak as well, since a worker gives
/// nothing back. Not ru_maxrss: that counts what was there before exec too.
pub fn peakMemory() u64 {
    return @max(kilobytes(status_file, "VmHWM:"), kilobytes(rollup_file, "Rss:")) * 1024;
}

/// The number on the line that starts with `name`; 0 where there is none.
fn kilobytes(fd: i32, name: []const u8) u64 {
    var buffer: [4096]u8 = undefined;
    const count = linux.pread(fd, &buffer, buffer.len, 0);
    if (linux.errno(count) != .SUCCESS) return 0;
    var lines = std.mem.tokenizeScalar(u8, buffer[0..count], '\n');
    while (lines.next()) |line| {
        if (!std.mem.startsWith(u8, line, name)) continue;
        return std.fmt.parseInt(u64, std.mem.trim(u8, line[name.len..], " \tkB"), 10) catch 0;
    }
    return 0;
}
