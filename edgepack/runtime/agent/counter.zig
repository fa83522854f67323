//! A 64-bit number that many threads add to. Processors without 64-bit atomic operations (ARMv6, small
//! ARMv7) take a lock, which is held for one addition.

const std = @import("std");
const Mutex = @import("mutex.zig").Mutex;

pub const Counter = if (@bitSizeOf(usize) >= 64) std.atomic.Value(u64) else Locked;

/// As much of std.atomic.Value as counting needs.
const Locked = struct {
    raw: u64,
    lock: Mutex = .{},

    pub fn init(value: u64) Locked {
        return .{ .raw = value };
    }

    pub fn fetchAdd(self: *Locked, more: u64, comptime _: std.builtin.AtomicOrder) u64 {
        self.lock.lock();
        defer self.lock.unlock();
        defer self.raw +%= more;
        return self.raw;
    }

    pub fn load(self: *Locked, comptime _: std.builtin.AtomicOrder) u64 {
        self.lock.lock();
        defer self.lock.unlock();
        return self.raw;
    }
};

test "a counter with a lock counts like one without" {
    var locked: Locked = .init(1 << 40);
    var plain: Counter = .init(1 << 40);
    try std.testing.expectEqual(plain.fetchAdd(7, .monotonic), locked.fetchAdd(7, .monotonic));
    try std.testing.expectEqual(plain.load(.monotonic), locked.load(.monotonic));
    try std.testing.expectEqual((1 << 40) + 7, locked.load(.monotonic));
}
