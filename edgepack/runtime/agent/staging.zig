//! Memory for the tensors of requests in progress, bounded in all.
//!
//! Buffers of moderate size are kept for the next request of the same size: fresh from the kernel, every
//! page of them costs a fault, which for an image is more than all else that a request costs here.

const std = @import("std");
const page_allocator = std.heap.page_allocator;
const page_bytes = std.heap.page_size_min;
const ModelInfo = @import("model_info.zig").ModelInfo;
const Mutex = @import("mutex.zig").Mutex;
const Problem = @import("problem.zig").Problem;

/// Of all requests in progress together; one larger than this runs when it is alone.
const max_bytes = 256 << 20;
const max_kept = 4;
const max_kept_bytes = 4 << 20; // each

pub const Staging = struct {
    lock: Mutex = .{},
    /// By requests in progress.
    held_bytes: usize = 0,
    kept: [max_kept]?[]u8 = @splat(null),
    /// Which of `kept` is replaced next where all are taken.
    oldest: usize = 0,

    /// `info.vector_bytes` of memory, to be given back.
    pub fn take(self: *Staging, info: *const ModelInfo, problem: *Problem) error{Problem}![]u8 {
        const bytes = info.vector_bytes;
        if (!self.reserve(bytes)) return problem.because(.service_unavailable, "too many large requests at once", .{});
        if (self.takeKept(wholePages(bytes))) |memory| {
            clearGaps(info, memory);
            return memory[0..bytes];
        }
        // Raw: Allocator.alloc() would write to every byte of it first.
        const memory = page_allocator.rawAlloc(wholePages(bytes), .fromByteUnits(page_bytes), @returnAddress()) orelse {
            self.unreserve(bytes);
            return problem.because(.service_unavailable, "out of memory", .{});
        };
        return memory[0..bytes];
    }

    pub fn give(self: *Staging, taken: []u8) void {
        const memory = taken.ptr[0..wholePages(taken.len)];
        if (self.keep(memory, taken.len)) |it| page_allocator.rawFree(it, .fromByteUnits(page_bytes), @returnAddress());
    }

    /// What is to be freed instead.
    fn keep(self: *Staging, memory: []u8, held: usize) ?[]u8 {
        self.lock.lock();
        defer self.lock.unlock();
        self.held_bytes -= held;
        if (memory.len > max_kept_bytes) return memory;
        for (&self.kept) |*slot| if (slot.* == null) {
            slot.* = memory;
            return null;
        };
        const replaced = self.kept[self.oldest];
        self.kept[self.oldest] = memory;
        self.oldest = (self.oldest + 1) % max_kept;
        return replaced;
    }

    fn takeKept(self: *Staging, bytes: usize) ?[]u8 {
        self.lock.lock();
        defer self.lock.unlock();
        for (&self.kept) |*slot| {
            const memory = slot.* orelse continue;
            if (memory.len != bytes) continue;
            slot.* = null;
            return memory;
        }
        return null;
    }

    fn reserve(self: *Staging, bytes: usize) bool {
        self.lock.lock();
        defer self.lock.unlock();
        if (self.held_bytes > 0 and self.held_bytes + bytes > max_bytes) return false;
        self.held_bytes += bytes;
        return true;
    }

    fn unreserve(self: *Staging, bytes: usize) void {
        self.lock.lock();
        defer self.lock.unlock();
        self.held_bytes -= bytes;
    }
};

/// What lies between the inputs goes to the worker with them; it must not be another model's data.
fn clearGaps(info: *const ModelInfo, memory: []u8) void {
    for (info.inputs, 1..) |input, next| {
        const end = if (next < info.inputs.len) info.inputs[next].offset else info.outputs[0].offset;
        @memset(memory[input.offset + input.nbytes .. end], 0);
    }
}

fn wholePages(bytes: usize) usize {
    return std.mem.alignForward(usize, bytes, page_bytes);
}

const testing = std.testing;

fn model(comptime nbytes: usize) ModelInfo {
    const end = comptime std.mem.alignForward(usize, nbytes, 64); // or the tensors would lie on our stack
    return .{
        .name = "m",
        .version = "1.0.0",
        .target = "t",
        .arch = "x",
        .inputs = &.{.{ .name = "x", .dtype = .uint8, .shape = &.{nbytes}, .nbytes = nbytes, .offset = 0 }},
        .outputs = &.{.{ .name = "y", .dtype = .uint8, .shape = &.{1}, .nbytes = 1, .offset = end }},
        .arena_bytes = 0,
        .weights_bytes = 0,
        .tolerance = 1,
        .golden_count = 1,
        .vector_bytes = end + 64,
        .shm_bytes = std.mem.alignForward(usize, end + 64, 4096),
    };
}

test "memory is used again, and holds nothing of another request between the inputs" {
    var staging: Staging = .{};
    var problem: Problem = .{};
    const small = model(100);
    const first = try staging.take(&small, &problem);
    try testing.expectEqual(192, first.len);
    @memset(first, 0xaa);
    const place = first.ptr;
    staging.give(first);
    const second = try staging.take(&small, &problem);
    try testing.expectEqual(place, second.ptr);
    for (second[100..128]) |byte| try testing.expectEqual(0, byte);
    staging.give(second);
    for (0..10) |_| {
        var taken: [6][]u8 = undefined;
        for (&taken) |*memory| memory.* = try staging.take(&small, &problem);
        for (taken) |memory| staging.give(memory);
    }
    try testing.expectEqual(0, staging.held_bytes);
    for (staging.kept) |memory| try testing.expectEqual(page_bytes, memory.?.len);
}

test "requests in progress are bounded together, and one alone is not" {
    var staging: Staging = .{};
    var problem: Problem = .{};
    const large = model(200 << 20);
    const huge = model(300 << 20);
    const alone = try staging.take(&huge, &problem);
    try testing.expectError(error.Problem, staging.take(&model(1), &problem));
    try testing.expectEqual(.service_unavailable, problem.status);
    staging.give(alone);
    const one = try staging.take(&large, &problem);
    try testing.expectError(error.Problem, staging.take(&large, &problem));
    const small = try staging.take(&model(1), &problem);
    staging.give(small);
    staging.give(one);
    try testing.expectEqual(0, staging.held_bytes);
    try testing.expect(staging.kept[0] != null and staging.kept[1] == null);
}
