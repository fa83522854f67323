//! What is known of one model's captures while the server runs, by the model's name, and what a request
//! and its answer say of them.

const boot = @import("boot.zig");
const format = @import("capture_format.zig");
const Rules = @import("capture_rules.zig").Rules;
const Writing = @import("capture_writer.zig").Writing;

const max_failures = 64;

/// What a request says of its own capture.
pub const Wish = struct {
    asked: bool = false,
    /// One JSON object, or nothing.
    caller: ?[]const u8 = null,
    caller_buffer: [format.max_caller_bytes]u8 = undefined,
};

/// What the answer says of it.
pub const Told = union(enum) {
    none,
    number: u64,
    /// It was asked for, and this is why not.
    refused: []const u8,
};

/// Why a capture whose number was given is not on the disk.
pub const Failure = struct { number: u64, reason: []const u8 };

/// Of one model, by name. Under the lock of Captures, but for what is the writer's.
pub const Model = struct {
    name_buffer: [64]u8 = undefined,
    name_len: u8 = 0,
    rules: Rules = .{},
    /// Requests so far.
    seen: u64 = 0,
    phase: enum { idle, wanted, open, broken } = .idle,
    /// Why it is broken.
    trouble: []const u8 = "",
    /// Numbers from `next` to before `end` may be given.
    next: u64 = 0,
    end: u64 = 0,
    queued: u64 = 0,
    written: u64 = 0,
    dropped: u64 = 0,
    failed: u64 = 0,
    failures: [max_failures]Failure = undefined,
    failures_seen: u64 = 0,
    /// The writer is to begin a new segment.
    end_segment: bool = false,
    /// By boot.milliseconds(); the writer tries again then, if it is asked.
    retry_at: u64 = 0,
    /// The writer's own.
    writing: Writing = .{},

    pub fn name(self: *const Model) []const u8 {
        return self.name_buffer[0..self.name_len];
    }

    /// The writer is to open the folder, again where that failed a while ago.
    pub fn want(self: *Model) void {
        switch (self.phase) {
            .wanted, .open => return,
            .idle => {},
            .broken => if (boot.milliseconds() < self.retry_at) return,
        }
        self.phase = .wanted;
    }

    /// The number is known to somebody.
    pub fn noteFailure(self: *Model, number: u64, reason: []const u8) void {
        self.failures[@intCast(self.failures_seen % max_failures)] = .{ .number = number, .reason = reason };
        self.failures_seen += 1;
    }

    pub fn failure(self: *const Model, number: u64) ?[]const u8 {
        for (self.failures[0..@intCast(@min(self.failures_seen, max_failures))]) |it| if (it.number == number) return it.reason;
        return null;
    }
};
