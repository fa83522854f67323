//! Captures of requests, from the request's side: whether one is captured, its number, and the handover to
//! the writer (capture_writer.zig), which alone touches the disk.
//!
//! A request copies its tensors into memory of its own and puts that into a queue of bounded size; it
//! never waits for the disk. Where the queue is full the capture is dropped and counted. One case waits,
//! for `first_wait_ms` at most: a request that asks to be captured, for a model that was never captured
//! before, needs a number that is safe on the disk, and the writer has to fetch the first ones.
//!
//! What is kept here goes by the model's name and outlasts its versions and workers.

const std = @import("std");
const page_allocator = std.heap.page_allocator;
const boot = @import("boot.zig");
const clock = @import("clock.zig");
const format = @import("capture_format.zig");
const capture_model = @import("capture_model.zig");
const Model = capture_model.Model;
const Told = capture_model.Told;
const Wish = capture_model.Wish;
const metrics = @import("metrics.zig");
const Mutex = @import("mutex.zig").Mutex;
const Node = @import("capture_node.zig").Node;
const ServedModel = @import("served_model.zig").ServedModel;
const states = @import("state.zig");
const Store = @import("store.zig").Store;
const Writer = @import("capture_writer.zig").Writer;

/// Of captures that wait for the disk, all models together.
pub const max_queue_bytes = 16 << 20;
/// One that is larger than the queue goes through it alone.
pub const max_record_bytes = 64 << 20;
const first_wait_ms = 2_000;
const settle_ms = 10_000;

pub const Captures = struct {
    store: Store,
    boot_id: boot.Id = undefined,
    lock: Mutex = .{},
    models: [states.max_models]*Model = undefined,
    len: usize = 0,
    first: ?*Node = null,
    last: ?*Node = null,
    queue_bytes: usize = 0,
    random: std.Random.SplitMix64 = .init(0),
    /// How often somebody asked for all to be on the disk, and up to which of these it is.
    settle_asked: u64 = 0,
    settle_done: u64 = 0,
    stopping: bool = false,
    writer: Writer = .{},

    /// Reads all rules, and makes ready what they need.
    pub fn start(self: *Captures) void {
        self.boot_id = boot.id();
        self.random = .init(clock.nanoseconds() ^ boot.wallMilliseconds());
        self.writer.begin(self);
    }

    /// Writes what waits, and no longer than for `settle_ms`.
    pub fn stop(self: *Captures) void {
        self.lock.lock();
        self.stopping = true;
        self.lock.unlock();
        self.writer.end(settle_ms);
    }

    /// To be called with each request that succeeded. Inputs and outputs lie in `memory` as they do in
    /// shared memory.
    pub fn offer(self: *Captures, served: *ServedModel, wish: *const Wish, memory: []const u8) Told {
        self.lock.lock();
        const model = self.findOrAdd(served.info.name) orelse {
            self.lock.unlock();
            return if (wish.asked) .{ .refused = "out of memory" } else .none;
        };
        const rules = model.rules;
        const index = model.seen;
        const random: u32 = @truncate(self.random.next());
        model.seen += 1;
        self.lock.unlock();
        if (rules.off) return if (wish.asked) .{ .refused = "captures of this model are off" } else .none;
        const reason: format.Reason = if (wish.asked) .asked else rules.reason(served.info.outputs, memory, .{ .index = index, .random = random }) orelse return .none;
        const description: format.Description = .{
            .model = served.info.name,
            .version = served.info.version,
            .manifest = &served.installed.digests.get(.manifest),
            .time = boot.wallMilliseconds(),
            .boot = self.boot_id,
            .boot_ms = boot.milliseconds(),
            .reason = reason,
            .caller = wish.caller,
            .inputs = served.info.inputs,
            .outputs = served.info.outputs,
        };
        const number = self.handOver(model, served.counters, &description, memory, wish.asked) catch |err| {
            const why = self.noteLost(model, served.counters, err);
            return if (wish.asked) .{ .refused = why } else .none;
        };
        return .{ .number = number };
    }

    const HandOverError = error{ TooLarge, QueueFull, OutOfMemory, NoNumber, Broken };

    fn handOver(self: *Captures, model: *Model, counters: *metrics.Version, description: *const format.Description, memory: []const u8, asked: bool) HandOverError!u64 {
        var scratch: [512]u8 = undefined;
        var counter: std.Io.Writer.Discarding = .init(&scratch);
        description.write(&counter.writer) catch unreachable; // it only counts
        const json_bytes = counter.fullCount();
        const body_bytes = description.bodyBytes();
        if (json_bytes > format.max_json_bytes or body_bytes > max_record_bytes) return error.TooLarge;
        if (asked) try self.awaitFirstNumbers(model);
        try self.admit(Node.memoryBytes(json_bytes, body_bytes));
        const node = Node.create(model, counters, @intCast(json_bytes), body_bytes) orelse {
            self.giveBack(Node.memoryBytes(json_bytes, body_bytes));
            return error.OutOfMemory;
        };
        node.fill(description, memory);
        return self.push(node);
    }

    fn admit(self: *Captures, bytes: usize) error{QueueFull}!void {
        self.lock.lock();
        defer self.lock.unlock();
        if (self.queue_bytes > 0 and self.queue_bytes + bytes > max_queue_bytes) return error.QueueFull;
        self.queue_bytes += bytes;
    }

    fn giveBack(self: *Captures, bytes: usize) void {
        self.lock.lock();
        defer self.lock.unlock();
        self.queue_bytes -= bytes;
    }

    /// Gives the capture its number and the writer the capture, in this order for all.
    fn push(self: *Captures, node: *Node) error{ NoNumber, Broken }!u64 {
        const model = node.model;
        self.lock.lock();
        if (model.next == model.end) {
            model.want();
            const broken = model.phase == .broken;
            self.queue_bytes -= node.memory.len;
            self.lock.unlock();
            node.free();
            self.writer.wake();
            return if (broken) error.Broken else error.NoNumber;
        }
        defer self.writer.wake();
        defer self.lock.unlock();
        node.number = model.next;
        model.next += 1;
        model.queued += 1;
        metrics.table.retain(node.counters);
        if (self.last) |last| last.next = node else self.first = node;
        self.last = node;
        return node.number;
    }

    fn awaitFirstNumbers(self: *Captures, model: *Model) error{NoNumber}!void {
        const deadline = clock.milliseconds() + first_wait_ms;
        self.lock.lock();
        if (model.next == model.end) model.want();
        const waits = model.phase == .wanted;
        self.lock.unlock();
        if (!waits) return;
        if (!self.writer.ensureRuns(self)) return error.NoNumber;
        self.writer.wake();
        while (clock.milliseconds() < deadline) {
            _ = clock.poll(&.{}, clock.milliseconds() + 1);
            self.lock.lock();
            defer self.lock.unlock();
            if (model.phase != .wanted) return;
        }
    }

    /// Counts a capture that got no number; why, in words.
    fn noteLost(self: *Captures, model: *Model, counters: *metrics.Version, err: HandOverError) []const u8 {
        self.lock.lock();
        defer self.lock.unlock();
        if (err == error.Broken) model.failed += 1 else model.dropped += 1;
        _ = counters.captures.getPtr(if (err == error.Broken) .failed else .dropped).fetchAdd(1, .monotonic);
        return switch (err) {
            error.TooLarge => "the request is too large to be captured",
            error.QueueFull => "too many captures wait for the disk",
            error.OutOfMemory => "out of memory",
            error.NoNumber => "the disk is too slow: no number is free",
            error.Broken => model.trouble,
        };
    }

    /// Reads a model's rules again, and returns when they are followed and all captures before are on
    /// the disk; false where that takes too long.
    pub fn reload(self: *Captures, name: []const u8) bool {
        self.lock.lock();
        const model = self.findOrAdd(name) orelse {
            self.lock.unlock();
            return false;
        };
        self.lock.unlock();
        self.writer.readRules(self, model);
        self.lock.lock();
        model.end_segment = true;
        self.lock.unlock();
        return self.settle();
    }

    /// Returns when all captures so far are on the disk; false where that takes too long.
    pub fn settle(self: *Captures) bool {
        if (!self.writer.ensureRuns(self)) return false;
        self.lock.lock();
        self.settle_asked += 1;
        const mine = self.settle_asked;
        self.lock.unlock();
        self.writer.wake();
        const deadline = clock.milliseconds() + settle_ms;
        while (clock.milliseconds() < deadline) {
            _ = clock.poll(&.{}, clock.milliseconds() + 2);
            self.lock.lock();
            defer self.lock.unlock();
            if (self.settle_done >= mine) return true;
        }
        return false;
    }

    /// Under the lock.
    pub fn find(self: *Captures, name: []const u8) ?*Model {
        for (self.models[0..self.len]) |model| if (std.mem.eql(u8, model.name(), name)) return model;
        return null;
    }

    /// Under the lock. Null where no more fit; `name` has passed naming.zig.
    pub fn findOrAdd(self: *Captures, name: []const u8) ?*Model {
        if (self.find(name)) |it| return it;
        if (self.len == self.models.len) return null;
        const model = page_allocator.create(Model) catch return null;
        model.* = .{ .name_len = @intCast(name.len) };
        @memcpy(model.name_buffer[0..name.len], name);
        self.models[self.len] = model;
        self.len += 1;
        return model;
    }

    /// All that wait, in order; the writer's from now on.
    pub fn takeAll(self: *Captures) ?*Node {
        self.lock.lock();
        defer self.lock.unlock();
        const first = self.first;
        self.first = null;
        self.last = null;
        return first;
    }

    pub const Outcome = union(metrics.CaptureOutcome) { written, dropped: []const u8, failed: []const u8 };

    /// The writer is done with it.
    pub fn done(self: *Captures, node: *Node, outcome: Outcome) void {
        const model = node.model;
        _ = node.counters.captures.getPtr(outcome).fetchAdd(1, .monotonic);
        metrics.table.release(node.counters);
        self.lock.lock();
        self.queue_bytes -= node.memory.len;
        model.queued -= 1;
        switch (outcome) {
            .written => model.written += 1,
            .dropped => |reason| {
                model.dropped += 1;
                model.noteFailure(node.number, reason);
            },
            .failed => |reason| {
                model.failed += 1;
                model.noteFailure(node.number, reason);
            },
        }
        self.lock.unlock();
        node.free();
    }
};

test {
    _ = @import("captures_test.zig");
}
