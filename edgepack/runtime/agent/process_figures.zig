//! What the kernel says of a process: memory, descriptors, processor time, when it started.

const std = @import("std");
const linux = std.os.linux;
const clock = @import("clock.zig");

/// USER_HZ, in which /proc counts time on every architecture that the agent is built for.
const ticks_per_second = 100;

/// Of process `pid`, or of this one. Null where it is gone.
pub fn residentBytes(pid: ?i32) ?u64 {
    var path_buffer: [32]u8 = undefined;
    const path = if (pid) |it|
        std.fmt.bufPrintSentinel(&path_buffer, "/proc/{d}/statm", .{it}, 0) catch unreachable
    else
        "/proc/self/statm";
    var buffer: [128]u8 = undefined;
    var words = std.mem.tokenizeScalar(u8, readFile(path, &buffer) orelse return null, ' ');
    _ = words.next(); // the size of its address space
    const pages = std.fmt.parseInt(u64, words.next() orelse return null, 10) catch return null;
    return pages * std.heap.pageSize();
}

/// Descriptors of this process, without the one that counts them.
pub fn openFiles() ?u64 {
    const fd = openForReading("/proc/self/fd", .{ .DIRECTORY = true }) orelse return null;
    defer _ = linux.close(fd);
    var found: u64 = 0;
    var buffer: [2048]u8 align(@alignOf(linux.dirent64)) = undefined;
    while (true) {
        const filled = linux.getdents64(fd, &buffer, buffer.len);
        if (linux.errno(filled) != .SUCCESS) return null;
        if (filled == 0) return found - 3; // ".", ".." and fd
        var at: usize = 0;
        while (at < filled) : (found += 1) {
            const entry: *const linux.dirent64 = @ptrCast(@alignCast(buffer[at..].ptr));
            at += entry.reclen;
        }
    }
}

pub fn cpuNanoseconds() u64 {
    return clock.nanosecondsOf(.PROCESS_CPUTIME_ID);
}

/// Since 1970. It is counted back from the clock as it is now, so it moves where the clock is set.
pub fn startSeconds() ?f64 {
    var buffer: [1024]u8 = undefined;
    const text = readFile("/proc/self/stat", &buffer) orelse return null;
    // The second field is the program's name in parentheses, which may hold anything.
    const after_name = (std.mem.findScalarLast(u8, text, ')') orelse return null) + 1;
    var words = std.mem.tokenizeScalar(u8, text[after_name..], ' ');
    for (0..19) |_| _ = words.next();
    const ticks = std.fmt.parseInt(u64, words.next() orelse return null, 10) catch return null;
    const age = nanosecondsAsSeconds(clock.nanosecondsOf(.BOOTTIME)) - @as(f64, @floatFromInt(ticks)) / ticks_per_second;
    return nanosecondsAsSeconds(clock.nanosecondsOf(.REALTIME)) - age;
}

fn nanosecondsAsSeconds(ns: u64) f64 {
    return @as(f64, @floatFromInt(ns)) / std.time.ns_per_s;
}

/// A file of /proc: as much as fits.
pub fn readFile(path: [*:0]const u8, buffer: []u8) ?[]const u8 {
    const fd = openForReading(path, .{}) orelse return null;
    defer _ = linux.close(fd);
    const count = linux.read(fd, buffer.ptr, buffer.len);
    return if (linux.errno(count) == .SUCCESS) buffer[0..count] else null;
}

fn openForReading(path: [*:0]const u8, flags: linux.O) ?linux.fd_t {
    var all = flags;
    all.CLOEXEC = true;
    const fd = linux.open(path, all, 0);
    return if (linux.errno(fd) == .SUCCESS) @intCast(fd) else null;
}

const testing = std.testing;

test "this process has memory, files, processor time and a start" {
    try testing.expect(residentBytes(null).? > 4096);
    try testing.expectEqual(residentBytes(linux.getpid()) != null, true);
    try testing.expectEqual(null, residentBytes(std.math.maxInt(i32)));
    const before = openFiles().?;
    const fd = openForReading("/proc/self/fd", .{}).?;
    defer _ = linux.close(fd);
    try testing.expectEqual(before + 1, openFiles().?);
    const now = nanosecondsAsSeconds(clock.nanosecondsOf(.REALTIME));
    try testing.expect(startSeconds().? <= now and startSeconds().? > now - 3600);
}
