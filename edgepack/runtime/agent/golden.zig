//! The golden vectors: does the model compute here what it computed on the reference?
//!
//!     "EPGV0001", u32le count, 52 zero bytes; then per vector every input and every output in the
//!     model's order, raw little-endian, each padded with zeros to a multiple of 64.
//!
//! Each vector goes through the real worker, over the memory that will carry requests. The outputs are
//! filled with 0xFF first, so that a worker which writes nothing has not left the right answer there.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const Blob = @import("blob.zig").Blob;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const worker_process = @import("worker_process.zig");
const WorkerProcess = worker_process.WorkerProcess;

const magic = "EPGV0001";
const header_bytes = 64;
/// For one vector, and for the start of the worker; a worker that hangs must not hang the device.
const deadline_ms = 60_000;

/// Runs every vector; refused with check "golden" where an output differs, "worker" where the worker
/// fails. `golden` is golden.bin, unread.
pub fn run(arena: Allocator, io: Io, refusal: *Refusal, files: worker_process.Files, info: *const ModelInfo, golden: *Blob) refusals.Error!void {
    const expected_size = header_bytes + @as(u64, info.golden_count) * info.vector_bytes;
    if (golden.size != expected_size) {
        return refusal.because(.package, "golden.bin has {d} bytes, not the {d} of its {d} vectors", .{ golden.size, expected_size, info.golden_count });
    }
    var head: [header_bytes]u8 = undefined;
    _ = try golden.next(io, refusal, &head);
    var expected_head: [header_bytes]u8 = @splat(0);
    expected_head[0..magic.len].* = magic.*;
    std.mem.writeInt(u32, expected_head[magic.len..][0..4], info.golden_count, .little);
    if (!std.mem.eql(u8, &head, &expected_head)) return refusal.because(.package, "golden.bin has another header", .{});

    const vector = try arena.alloc(u8, info.vector_bytes);
    var process = try WorkerProcess.start(refusal, files, info, deadline_ms);
    defer process.stop();
    for (0..info.golden_count) |index| {
        _ = try golden.next(io, refusal, vector);
        try runVector(refusal, &process, info, index, vector);
    }
    _ = try golden.next(io, refusal, &head); // the end, and with it the digest
}

fn runVector(refusal: *Refusal, process: *WorkerProcess, info: *const ModelInfo, index: usize, vector: []const u8) refusals.Error!void {
    const outputs_at = info.outputs[0].offset;
    @memcpy(process.shm[0..outputs_at], vector[0..outputs_at]);
    @memset(process.shm[outputs_at..], 0xff);
    _ = try process.run(refusal, deadline_ms, null);
    for (info.outputs) |*output| {
        const found = process.shm[output.offset..][0..output.nbytes];
        const reference = vector[output.offset..][0..output.nbytes];
        const difference = compare(output, found, reference, info.tolerance) orelse continue;
        return refusal.because(.golden, "vector {d}, output {s}: {f}", .{ index, output.name, difference });
    }
}

const Difference = union(enum) {
    not_finite,
    not_equal: usize, // elements or bytes that differ
    error_above: struct { relative: f64, tolerance: f64 },

    pub fn format(self: Difference, out: *Io.Writer) Io.Writer.Error!void {
        switch (self) {
            .not_finite => try out.writeAll("not a finite number where the reference is one"),
            .not_equal => |count| try out.print("{d} elements are not equal to the reference", .{count}),
            .error_above => |it| try out.print("relative error {e:.2} above {e:.2}", .{ it.relative, it.tolerance }),
        }
    }
};

/// Floats: max|y - ref| <= tolerance * max|ref| over the tensor. Integers of 8 bits, which may stand for
/// numbers: max|y - ref| <= tolerance * 255. Everything else: equal.
fn compare(tensor: *const Tensor, found: []const u8, reference: []const u8, tolerance: f64) ?Difference {
    return switch (tensor.dtype) {
        .float16 => compareFloats(f16, found, reference, tolerance),
        .float32 => compareFloats(f32, found, reference, tolerance),
        .float64 => compareFloats(f64, found, reference, tolerance),
        .int8 => compareBytes(i8, found, reference, tolerance),
        .uint8 => compareBytes(u8, found, reference, tolerance),
        else => compareExactly(tensor.dtype.size(), found, reference),
    };
}

fn compareExactly(element: usize, found: []const u8, reference: []const u8) ?Difference {
    var differing: usize = 0;
    var at: usize = 0;
    while (at < found.len) : (at += element) {
        if (!std.mem.eql(u8, found[at..][0..element], reference[at..][0..element])) differing += 1;
    }
    return if (differing > 0) .{ .not_equal = differing } else null;
}

fn compareBytes(comptime T: type, found: []const u8, reference: []const u8, tolerance: f64) ?Difference {
    const allowed = tolerance * 255;
    if (allowed < 1) return compareExactly(1, found, reference);
    var worst: u32 = 0;
    for (found, reference) |y, ref| worst = @max(worst, @abs(@as(i32, @as(T, @bitCast(y))) - @as(i32, @as(T, @bitCast(ref)))));
    if (@as(f64, @floatFromInt(worst)) <= allowed) return null;
    return .{ .error_above = .{ .relative = @as(f64, @floatFromInt(worst)) / 255, .tolerance = tolerance } };
}

fn compareFloats(comptime T: type, found: []const u8, reference: []const u8, tolerance: f64) ?Difference {
    var largest: f64 = 0;
    var worst: f64 = 0;
    var at: usize = 0;
    while (at < found.len) : (at += @sizeOf(T)) {
        const y: f64 = std.mem.bytesToValue(T, found[at..][0..@sizeOf(T)]);
        const ref: f64 = std.mem.bytesToValue(T, reference[at..][0..@sizeOf(T)]);
        if (!std.math.isFinite(ref)) {
            // Infinity of the same sign, or NaN: the reference has no number to compare with.
            const same = if (std.math.isNan(ref)) std.math.isNan(y) else y == ref;
            if (!same) return .{ .not_equal = 1 };
            continue;
        }
        if (!std.math.isFinite(y)) return .not_finite;
        largest = @max(largest, @abs(ref));
        worst = @max(worst, @abs(y - ref));
    }
    const scale = @max(largest, 1e-30);
    if (worst <= tolerance * scale) return null;
    return .{ .error_above = .{ .relative = worst / scale, .tolerance = tolerance } };
}

const testing = std.testing;

fn testFloats(found: []const f32, reference: []const f32) ?Difference {
    return compareFloats(f32, std.mem.sliceAsBytes(found), std.mem.sliceAsBytes(reference), 1e-4);
}

test "floats may differ by the tolerance times the largest reference, not more" {
    const inf = std.math.inf(f32);
    const nan = std.math.nan(f32);
    try testing.expectEqual(null, testFloats(&.{ 1000.09, 0.09 }, &.{ 1000, 0 }));
    try testing.expect(testFloats(&.{ 1000.11, 0 }, &.{ 1000, 0 }) != null);
    try testing.expect(testFloats(&.{ 1000, 0.11 }, &.{ 1000, 0 }) != null);
    try testing.expect(testFloats(&.{-1}, &.{1}) != null);
    try testing.expectEqual(null, testFloats(&.{ 0, -0.0 }, &.{ 0, 0 }));
    try testing.expect(testFloats(&.{1e-20}, &.{0}) != null);
    try testing.expectEqual(.not_finite, testFloats(&.{nan}, &.{1}).?);
    try testing.expectEqual(.not_finite, testFloats(&.{ inf, 0 }, &.{ 3e38, 0 }).?);
    try testing.expectEqual(null, testFloats(&.{ nan, inf, -inf, 1 }, &.{ nan, inf, -inf, 1 }));
    try testing.expect(testFloats(&.{ -inf, 1 }, &.{ inf, 1 }) != null);
    try testing.expect(testFloats(&.{ 1, 1 }, &.{ nan, 1 }) != null);
}

test "untouched output memory is never the right answer" {
    const untouched: [16]u8 = @splat(0xff);
    const zeros: [16]u8 = @splat(0);
    for (std.enums.values(model_info.DType)) |dtype| {
        const tensor: Tensor = .{ .name = "y", .dtype = dtype, .shape = &.{}, .nbytes = 16, .offset = 0 };
        // Of signed bytes it is -1, a step away: there it takes outputs that differ, as golden vectors' do.
        const tolerance: f64 = if (dtype == .int8) 1.0 / 256.0 else 0.99;
        try testing.expect(compare(&tensor, &untouched, &zeros, tolerance) != null);
        try testing.expectEqual(null, compare(&tensor, &zeros, &zeros, 1e-4));
    }
}

test "integers of 8 bits may differ by the tolerance times 255, wider ones not at all" {
    const bytes: Tensor = .{ .name = "y", .dtype = .int8, .shape = &.{}, .nbytes = 4, .offset = 0 };
    const reference = [_]i8{ -128, 0, 127, 5 };
    const close = [_]i8{ -126, 2, 125, 5 };
    const far = [_]i8{ 127, 0, 127, 5 };
    const ref = std.mem.asBytes(&reference);
    try testing.expectEqual(null, compare(&bytes, std.mem.asBytes(&close), ref, 2.0 / 255.0));
    try testing.expect(compare(&bytes, std.mem.asBytes(&close), ref, 1.9 / 255.0) != null);
    try testing.expectEqual(3, compare(&bytes, std.mem.asBytes(&close), ref, 1e-4).?.not_equal);
    try testing.expectEqual(1.0, compare(&bytes, std.mem.asBytes(&far), ref, 0.5).?.error_above.relative);
    const unsigned: Tensor = .{ .name = "y", .dtype = .uint8, .shape = &.{}, .nbytes = 2, .offset = 0 };
    try testing.expectEqual(null, compare(&unsigned, &.{ 129, 255 }, &.{ 127, 253 }, 0.01));
    try testing.expect(compare(&unsigned, &.{ 0, 255 }, &.{ 255, 255 }, 0.99) != null);
    const wide: Tensor = .{ .name = "y", .dtype = .int16, .shape = &.{}, .nbytes = 2, .offset = 0 };
    try testing.expect(compare(&wide, &.{ 1, 0 }, &.{ 2, 0 }, 0.99) != null);
}

test "half floats are compared as numbers" {
    const a = [_]f16{ 1.0, 2.0 };
    const b = [_]f16{ 1.0, 2.002 };
    try testing.expectEqual(null, compareFloats(f16, std.mem.sliceAsBytes(&a), std.mem.sliceAsBytes(&b), 1e-2));
    try testing.expect(compareFloats(f16, std.mem.sliceAsBytes(&a), std.mem.sliceAsBytes(&b), 1e-4) != null);
}
