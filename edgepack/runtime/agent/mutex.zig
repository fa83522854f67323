//! A mutual exclusion lock of threads on a futex. (std.Io.Mutex goes through the table of functions
//! that system_io.zig keeps small.)

const std = @import("std");
const linux = std.os.linux;

pub const Mutex = struct {
    state: std.atomic.Value(u32) = .init(free),

    const free = 0;
    const held = 1;
    const awaited = 2; // held, and somebody may sleep

    pub fn lock(self: *Mutex) void {
        if (self.state.cmpxchgStrong(free, held, .acquire, .monotonic) == null) return;
        while (self.state.swap(awaited, .acquire) != free) {
            _ = linux.futex_4arg(&self.state.raw, .{ .cmd = .WAIT, .private = true }, awaited, null);
        }
    }

    pub fn unlock(self: *Mutex) void {
        const before = self.state.swap(free, .release);
        std.debug.assert(before != free);
        if (before == awaited) _ = linux.futex_3arg(&self.state.raw, .{ .cmd = .WAKE, .private = true }, 1);
    }
};

test "what is under the lock is never torn" {
    const Shared = struct {
        mutex: Mutex = .{},
        counter: u64 = 0,

        fn work(self: *@This()) void {
            for (0..10_000) |_| {
                self.mutex.lock();
                defer self.mutex.unlock();
                const seen = self.counter;
                std.atomic.spinLoopHint();
                self.counter = seen + 1;
            }
        }
    };
    var shared: Shared = .{};
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, Shared.work, .{&shared});
    for (threads) |thread| thread.join();
    try std.testing.expectEqual(40_000, shared.counter);
}
