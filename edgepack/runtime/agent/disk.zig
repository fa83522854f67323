//! How much room there is: fstatfs(2), which Zig's standard library does not wrap.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;

/// The kernel's `struct statfs` (64-bit) or `struct statfs64` (32-bit): from f_type to f_bfree the
/// words before the counts differ only in width. Enough room is kept for the whole of either.
const Statfs = extern struct {
    type: usize,
    block_size: usize,
    blocks: u64,
    free: u64,
    available: u64,
    rest: [16]u64,
};

pub const Room = struct { free: u64, total: u64 };

/// Bytes that this user may still write to the file system of an open file or directory.
pub fn freeBytes(handle: std.posix.fd_t) ?u64 {
    return (room(handle) orelse return null).free;
}

/// The same, and how large the file system is.
pub fn room(handle: std.posix.fd_t) ?Room {
    var buffer: Statfs = undefined;
    const fd: usize = @bitCast(@as(isize, handle));
    const result = if (@sizeOf(usize) == 8)
        linux.syscall2(.fstatfs, fd, @intFromPtr(&buffer))
    else
        // 84 is what the ARM kernel takes its packed struct statfs64 to be.
        linux.syscall3(.fstatfs64, fd, 84, @intFromPtr(&buffer));
    if (linux.errno(result) != .SUCCESS) return null;
    return .{ .free = buffer.available *| buffer.block_size, .total = buffer.blocks *| buffer.block_size };
}

test "there is some room in the temporary directory" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    const free = freeBytes(tmp.dir.handle).?;
    try std.testing.expect(free > 1 << 20 and free < 1 << 60);
    try std.testing.expect(room(tmp.dir.handle).?.total > free);
    try std.testing.expectEqual(null, freeBytes(-1));
}
