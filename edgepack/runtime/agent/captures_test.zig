const std = @import("std");
const testing = std.testing;
const captures = @import("captures.zig");
const Captures = captures.Captures;
const format = @import("capture_format.zig");
const metrics = @import("metrics.zig");
const ServedModel = @import("served_model.zig").ServedModel;
const Wish = @import("capture_model.zig").Wish;
const Tensor = @import("model_info.zig").Tensor;

const mebibyte = 1 << 20;

/// As much of a model as captures look at: `bytes` in, one out.
fn model(counters: *metrics.Version, inputs: []const Tensor, outputs: []const Tensor) ServedModel {
    var it: ServedModel = undefined;
    it.counters = counters;
    it.installed = .{ .version = "1.0.0", .digests = .initFill(@splat('a')) };
    it.info.name = "m";
    it.info.version = "1.0.0";
    it.info.inputs = inputs;
    it.info.outputs = outputs;
    return it;
}

test "the queue is bounded, numbers follow each other, and what does not fit is counted" {
    const table = &metrics.table;
    const counters = table.acquire("m", "1.0.0");
    defer table.release(counters);
    const inputs = [_]Tensor{.{ .name = "x", .dtype = .uint8, .shape = &.{3 * mebibyte}, .nbytes = 3 * mebibyte, .offset = 0 }};
    const outputs = [_]Tensor{.{ .name = "y", .dtype = .uint8, .shape = &.{1}, .nbytes = 1, .offset = 3 * mebibyte }};
    var served = model(counters, &inputs, &outputs);
    const memory = try testing.allocator.alloc(u8, 3 * mebibyte + 64);
    defer testing.allocator.free(memory);
    for (memory, 0..) |*byte, index| byte.* = @truncate(index *% 31);
    const all = try testing.allocator.create(Captures);
    defer testing.allocator.destroy(all);
    all.* = .{ .store = undefined, .boot_id = @splat('0') };
    const it = all.findOrAdd("m").?;
    it.phase = .open;
    it.next = 7;
    it.end = 1000;
    const wish: Wish = .{ .asked = true };
    for (7..12) |number| try testing.expectEqual(number, all.offer(&served, &wish, memory).number);
    try testing.expectEqualStrings("too many captures wait for the disk", all.offer(&served, &wish, memory).refused);
    try testing.expect(all.queue_bytes <= captures.max_queue_bytes);
    try testing.expectEqual(.{ 5, 1 }, .{ it.queued, it.dropped });
    var next = all.takeAll();
    var number: u64 = 7;
    while (next) |node| : (number += 1) {
        next = node.next;
        try testing.expectEqual(number, node.number);
        const contents = node.record()[format.head_bytes..];
        try testing.expectEqualStrings("{\"model\":\"m\",\"version\":\"1.0.0\"", contents[0..30]);
        try testing.expectEqualSlices(u8, memory[0 .. 3 * mebibyte + 1], contents[node.json_bytes..]);
        all.done(node, if (number == 8) .{ .failed = "why" } else .written);
    }
    try testing.expectEqual(12, number);
    try testing.expectEqual(0, all.queue_bytes);
    try testing.expectEqual(.{ 0, 4, 1 }, .{ it.queued, it.written, it.failed });
    try testing.expectEqualStrings("why", it.failure(8).?);
    try testing.expectEqual(null, it.failure(9));
    try testing.expectEqual(1, counters.captures.get(.failed).raw);
    it.rules.off = true;
    try testing.expectEqualStrings("captures of this model are off", all.offer(&served, &wish, memory).refused);
    try testing.expectEqual(.none, all.offer(&served, &.{}, memory));
    std.heap.page_allocator.destroy(it);
}

test "the last failures are remembered, and no more of them" {
    const all = try testing.allocator.create(Captures);
    defer testing.allocator.destroy(all);
    all.* = .{ .store = undefined };
    const it = all.findOrAdd("m").?;
    defer std.heap.page_allocator.destroy(it);
    for (1..101) |number| it.noteFailure(number, "why");
    try testing.expectEqual(null, it.failure(36));
    for (37..101) |number| try testing.expectEqualStrings("why", it.failure(number).?);
}
