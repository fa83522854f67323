//! How old a file is on a device whose clock may say 1970 or jump.
//!
//! The wall clock alone must not decide what is deleted: one wrong second of it could take everything.
//! It is watched beside the clock that counts since the machine's start, which never jumps. Where the two
//! have run alike since a file was written, its age is what they say. A file from before that is judged
//! only once they have run alike for an hour, and no file is judged by a clock, or by a time of the file,
//! that stands before 2024, when none of this had been built.

const std = @import("std");

/// 2024-01-01 in milliseconds since 1970.
const plausible_ms = 1_704_067_200_000;
/// What counts as a jump; a clock that is slewed does not move so fast.
const jump_ms = 60_000;
const trust_ms = 60 * 60 * 1000;

pub const Watch = struct {
    wall: u64,
    boot: u64,
    /// By the clock since the start.
    steady_since: u64,

    pub fn begin(wall: u64, boot: u64) Watch {
        return .{ .wall = wall, .boot = boot, .steady_since = boot };
    }

    /// To be called again and again, at least every few minutes.
    pub fn look(self: *Watch, wall: u64, boot: u64) void {
        const expected = self.wall + (boot -| self.boot);
        const off = if (wall > expected) wall - expected else expected - wall;
        if (off > jump_ms) self.steady_since = boot;
        self.wall = wall;
        self.boot = boot;
    }

    /// Whether a file that was last written at `written`, by the wall clock of that time, is surely older
    /// than `max_ms`, as of the last look.
    pub fn isOlder(self: *const Watch, written: u64, max_ms: u64) bool {
        if (self.wall < plausible_ms or written < plausible_ms or written > self.wall) return false;
        const age = self.wall - written;
        if (age <= max_ms) return false;
        const steady = self.boot - self.steady_since;
        return age <= steady or steady >= trust_ms;
    }
};

const testing = std.testing;
const day = 24 * 60 * 60 * 1000;
const today = plausible_ms + 1000 * day;

test "a file of this run is as old as both clocks say" {
    var watch: Watch = .begin(today, 5000);
    watch.look(today + 10_000, 15_000);
    try testing.expect(watch.isOlder(today + 1000, 5000));
    try testing.expect(!watch.isOlder(today + 1000, 9000));
    try testing.expect(!watch.isOlder(today + 20_000, 1)); // from the future
}

test "a file from before is judged once the clock has proved itself" {
    var watch: Watch = .begin(today, 0);
    watch.look(today + 30 * 60_000, 30 * 60_000);
    try testing.expect(!watch.isOlder(today - 40 * day, 30 * day));
    watch.look(today + trust_ms, trust_ms);
    try testing.expect(watch.isOlder(today - 40 * day, 30 * day));
}

test "a clock that jumps deletes nothing for an hour, and one before 2024 nothing ever" {
    var watch: Watch = .begin(today, 0);
    watch.look(today + trust_ms, trust_ms);
    watch.look(today + 4000 * day, trust_ms + 1000); // eleven years ahead
    try testing.expect(!watch.isOlder(today, day));
    watch.look(today + trust_ms + 2000, trust_ms + 2000); // and back
    try testing.expect(!watch.isOlder(today - 40 * day, day));
    watch.look(today + 2 * trust_ms + 3000, 2 * trust_ms + 3000);
    try testing.expect(watch.isOlder(today - 40 * day, day));
    var lost: Watch = .begin(0, 0);
    lost.look(2 * trust_ms, 2 * trust_ms);
    try testing.expect(!lost.isOlder(1, 1));
    try testing.expect(!lost.isOlder(today, 1));
}

test "a clock that is slewed does not jump" {
    var watch: Watch = .begin(today, 0);
    for (1..121) |count| {
        const minute: u64 = count;
        watch.look(today + minute * 60_500, minute * 60_000);
    }
    try testing.expect(watch.isOlder(today - 2 * day, day));
}
