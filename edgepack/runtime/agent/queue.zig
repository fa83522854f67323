//! Turns at something that one thread uses at a time: first come, first served; no more than so many wait,
//! and none of them longer than so long.
//!
//! Each thread that waits lies in a linked list on its own stack and sleeps on a futex of its own, so that
//! a turn wakes exactly one. A turn is handed over, and a waiter that has waited long enough takes itself
//! out, under `mutex` only: it is the one or the other, never both.

const std = @import("std");
const linux = std.os.linux;
const clock = @import("clock.zig");
const Mutex = @import("mutex.zig").Mutex;

pub const Queue = struct {
    /// Around all below; held for moments only.
    mutex: Mutex = .{},
    taken: bool = false,
    first: ?*Waiter = null,
    last: ?*Waiter = null,
    len: u32 = 0,

    const Waiter = struct {
        next: ?*Waiter = null,
        has_turn: std.atomic.Value(u32) = .init(0),
    };

    pub const Error = error{
        /// `bound` others wait already.
        Full,
        /// The turn did not come within `patience_ms`.
        Late,
    };

    /// Returns when it is the caller's turn, which leave() ends.
    pub fn enter(self: *Queue, bound: u32, patience_ms: u32) Error!void {
        var waiter: Waiter = .{};
        {
            self.mutex.lock();
            defer self.mutex.unlock();
            if (!self.taken) {
                self.taken = true;
                return;
            }
            if (self.len >= bound) return error.Full;
            self.append(&waiter);
        }
        sleep(&waiter.has_turn, clock.milliseconds() + patience_ms);
        // Whoever handed the turn over is done with `waiter` once the lock is ours.
        self.mutex.lock();
        defer self.mutex.unlock();
        if (waiter.has_turn.load(.monotonic) != 0) return;
        self.remove(&waiter);
        return error.Late;
    }

    /// The turn goes to whoever has waited longest.
    pub fn leave(self: *Queue) void {
        self.mutex.lock();
        defer self.mutex.unlock();
        std.debug.assert(self.taken);
        const next = self.first orelse {
            self.taken = false;
            return;
        };
        self.remove(next);
        next.has_turn.store(1, .release);
        _ = linux.futex_3arg(&next.has_turn.raw, .{ .cmd = .WAKE, .private = true }, 1);
    }

    fn append(self: *Queue, waiter: *Waiter) void {
        if (self.last) |last| last.next = waiter else self.first = waiter;
        self.last = waiter;
        self.len += 1;
    }

    /// `waiter` is in the list; it is no longer than `bound`.
    fn remove(self: *Queue, waiter: *Waiter) void {
        var before: ?*Waiter = null;
        var here = self.first.?;
        while (here != waiter) : (here = here.next.?) before = here;
        if (before) |it| it.next = waiter.next else self.first = waiter.next;
        if (self.last == waiter) self.last = before;
        self.len -= 1;
    }
};

/// Until the flag is set, or `deadline` has come. FUTEX_WAIT takes a relative time, by CLOCK_MONOTONIC.
fn sleep(flag: *std.atomic.Value(u32), deadline: u64) void {
    while (flag.load(.acquire) == 0) {
        const left = deadline -| clock.milliseconds();
        if (left == 0) return;
        const timeout: linux.timespec = .{
            .sec = @intCast(left / std.time.ms_per_s),
            .nsec = @intCast(left % std.time.ms_per_s * std.time.ns_per_ms),
        };
        _ = linux.futex_4arg(&flag.raw, .{ .cmd = .WAIT, .private = true }, 0, &timeout);
    }
}

const testing = std.testing;

const Waiting = struct {
    queue: Queue = .{},
    order: [8]u8 = undefined,
    served: usize = 0,

    fn work(self: *Waiting, number: u8) void {
        self.queue.enter(8, 60_000) catch unreachable;
        self.order[self.served] = number;
        self.served += 1;
        self.queue.leave();
    }

    fn waitForLength(self: *Waiting, len: u32) void {
        while (true) {
            self.queue.mutex.lock();
            defer self.queue.mutex.unlock();
            if (self.queue.len == len) return;
        }
    }
};

test "turns come in the order in which they were asked for" {
    var shared: Waiting = .{};
    try shared.queue.enter(0, 0); // nobody is there: no place to wait is needed
    var threads: [8]std.Thread = undefined;
    for (&threads, 0..) |*thread, number| {
        thread.* = try std.Thread.spawn(.{}, Waiting.work, .{ &shared, @as(u8, @intCast(number)) });
        shared.waitForLength(@intCast(number + 1));
    }
    try testing.expectError(error.Full, shared.queue.enter(8, 60_000));
    shared.queue.leave();
    for (threads) |thread| thread.join();
    try testing.expectEqualSlices(u8, &.{ 0, 1, 2, 3, 4, 5, 6, 7 }, &shared.order);
    try testing.expect(!shared.queue.taken and shared.queue.first == null and shared.queue.last == null);
}

test "whoever waits too long goes, and the others keep their places" {
    var shared: Waiting = .{};
    try shared.queue.enter(8, 0);
    const first = try std.Thread.spawn(.{}, Waiting.work, .{ &shared, 1 });
    shared.waitForLength(1);
    const before = clock.milliseconds();
    try testing.expectError(error.Late, shared.queue.enter(8, 20));
    try testing.expect(clock.milliseconds() >= before + 20);
    const second = try std.Thread.spawn(.{}, Waiting.work, .{ &shared, 2 });
    shared.waitForLength(2);
    shared.queue.leave();
    first.join();
    second.join();
    try testing.expectEqualSlices(u8, &.{ 1, 2 }, shared.order[0..2]);
}

/// Turns that are held about as long as others are ready to wait.
const Racing = struct {
    queue: Queue = .{},
    inside: std.atomic.Value(u32) = .init(0),
    turns: std.atomic.Value(u32) = .init(0),
    late: std.atomic.Value(u32) = .init(0),
    crossed: std.atomic.Value(u32) = .init(0),

    fn work(self: *Racing) void {
        for (0..200) |_| {
            self.queue.enter(16, 1) catch {
                _ = self.late.fetchAdd(1, .monotonic);
                continue;
            };
            if (self.inside.fetchAdd(1, .acq_rel) != 0) _ = self.crossed.fetchAdd(1, .monotonic);
            const until = clock.nanoseconds() + 200 * std.time.ns_per_us;
            while (clock.nanoseconds() < until) std.atomic.spinLoopHint();
            _ = self.turns.fetchAdd(1, .monotonic);
            _ = self.inside.fetchSub(1, .acq_rel);
            self.queue.leave();
        }
    }
};

test "a turn that comes as the waiter gives up is neither lost nor had twice" {
    var shared: Racing = .{};
    var threads: [16]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, Racing.work, .{&shared});
    for (threads) |thread| thread.join();
    try testing.expectEqual(0, shared.crossed.raw);
    try testing.expectEqual(threads.len * 200, shared.turns.raw + shared.late.raw);
    try testing.expect(shared.late.raw > 0 and shared.turns.raw > 0);
    try shared.queue.enter(0, 0); // free again
}
