//! One capture in memory, between the request that made it and the writer.

const std = @import("std");
const page_allocator = std.heap.page_allocator;
const page_bytes = std.heap.page_size_min;
const format = @import("capture_format.zig");
const metrics = @import("metrics.zig");
const Model = @import("capture_model.zig").Model;
const Tensor = @import("model_info.zig").Tensor;

/// A capture on its way to the disk. Its record lies behind it in the same memory.
pub const Node = struct {
    next: ?*Node = null,
    model: *Model,
    /// Held until the capture's end is known.
    counters: *metrics.Version,
    number: u64 = 0,
    json_bytes: u32,
    body_bytes: u64,
    memory: []align(page_bytes) u8,

    const record_at = std.mem.alignForward(usize, @sizeOf(Node), 64);

    pub fn create(model: *Model, counters: *metrics.Version, json_bytes: u32, body_bytes: u64) ?*Node {
        const bytes = memoryBytes(json_bytes, body_bytes);
        const memory = page_allocator.rawAlloc(bytes, .fromByteUnits(page_bytes), @returnAddress()) orelse return null;
        const aligned: []align(page_bytes) u8 = @alignCast(memory[0..bytes]);
        const self: *Node = @ptrCast(aligned.ptr);
        self.* = .{ .model = model, .counters = counters, .json_bytes = json_bytes, .body_bytes = body_bytes, .memory = aligned };
        return self;
    }

    pub fn memoryBytes(json_bytes: u64, body_bytes: u64) usize {
        return std.mem.alignForward(usize, @intCast(record_at + format.head_bytes + json_bytes + body_bytes), page_bytes);
    }

    /// Head, JSON and tensors.
    pub fn record(self: *Node) []u8 {
        return self.memory[record_at..][0 .. format.head_bytes + self.json_bytes + @as(usize, @intCast(self.body_bytes))];
    }

    pub fn free(self: *Node) void {
        page_allocator.rawFree(self.memory, .fromByteUnits(page_bytes), @returnAddress());
    }

    /// JSON and tensors, from where the request has them.
    pub fn fill(self: *Node, description: *const format.Description, memory: []const u8) void {
        const contents = self.record()[format.head_bytes..];
        var out: std.Io.Writer = .fixed(contents);
        description.write(&out) catch unreachable; // as long as it was counted
        for ([_][]const Tensor{ description.inputs, description.outputs }) |tensors| {
            for (tensors) |tensor| out.writeAll(memory[tensor.offset..][0..tensor.nbytes]) catch unreachable;
        }
        std.debug.assert(out.end == contents.len);
    }
};
