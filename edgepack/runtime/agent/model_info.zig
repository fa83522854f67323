//! model.json as the device needs it: which tensors the model takes and gives, where each lies in the
//! memory shared with the worker, and what the golden vectors must meet.
//!
//! Shared memory holds the inputs in order, then the outputs in order, each at the next multiple of
//! 64 bytes; its size is rounded up to 4096. A golden vector is laid out in the same way, unrounded.
//! Fields of model.json that are not named here are for people and for other tools.

const std = @import("std");
const Allocator = std.mem.Allocator;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Baselines = @import("baseline.zig").Baselines;
const document = @import("document.zig");
const Document = document.Document;

pub const max_tensors = 64; // inputs, and outputs
pub const max_dimensions = 16;
pub const max_tensor_name = 256;
/// Of inputs and outputs together; a wrong size must not become a wish for all of the memory.
pub const max_io_bytes = 1 << 30;
pub const max_golden_vectors = 64;
pub const tensor_alignment = 64;
pub const page_bytes = 4096;

/// Element types, in the order and with the values of `ep_dtype`, by their NumPy names.
pub const DType = enum(u8) {
    bool,
    int8,
    uint8,
    int16,
    uint16,
    int32,
    uint32,
    int64,
    uint64,
    float16,
    float32,
    float64,

    pub fn size(dtype: DType) usize {
        return switch (dtype) {
            .bool, .int8, .uint8 => 1,
            .int16, .uint16, .float16 => 2,
            .int32, .uint32, .float32 => 4,
            .int64, .uint64, .float64 => 8,
        };
    }

    pub fn Element(comptime dtype: DType) type {
        return switch (dtype) {
            .bool => bool,
            .int8 => i8,
            .uint8 => u8,
            .int16 => i16,
            .uint16 => u16,
            .int32 => i32,
            .uint32 => u32,
            .int64 => i64,
            .uint64 => u64,
            .float16 => f16,
            .float32 => f32,
            .float64 => f64,
        };
    }

    pub fn fromName(name: []const u8) ?DType {
        return std.meta.stringToEnum(DType, name);
    }
};

pub const Tensor = struct {
    name: []const u8,
    dtype: DType,
    shape: []const i64,
    nbytes: usize,
    /// From the start of shared memory, and of a golden vector.
    offset: usize,
};

pub const ModelInfo = struct {
    name: []const u8,
    version: []const u8,
    target: []const u8,
    /// As `@tagName(builtin.cpu.arch)` gives it.
    arch: []const u8,
    inputs: []const Tensor,
    outputs: []const Tensor,
    /// Null where the package carries none.
    baseline: ?Baselines = null,
    arena_bytes: u64,
    weights_bytes: u64,
    tolerance: f64,
    golden_count: u32,
    /// One golden vector; a multiple of 64.
    vector_bytes: usize,
    /// Shared memory; a multiple of 4096, never zero.
    shm_bytes: usize,

    /// What the result points to lives in `arena` or in `bytes`.
    pub fn parse(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!ModelInfo {
        const doc: Document = .{ .refusal = refusal, .check = .package, .title = "model.json" };
        const root = try doc.parse(arena, bytes);
        if (try doc.integer(root, "format", 1 << 30) != 1) {
            return doc.malformed("of another format than 1; is the agent too old?", .{});
        }
        const target = try doc.objectField(root, "target");
        var layout: Layout = .{};
        const inputs = try parseTensors(arena, doc, root, "inputs", &layout);
        const outputs = try parseTensors(arena, doc, root, "outputs", &layout);
        const golden = try doc.objectField(root, "golden");
        const count = try doc.integer(golden, "count", max_golden_vectors);
        if (count == 0) return doc.malformed("no golden vectors", .{});
        return .{
            .name = try doc.string(root, "name", 64),
            .version = try doc.string(root, "version", 32),
            .target = try doc.string(target, "name", 64),
            .arch = try doc.string(target, "arch", 64),
            .inputs = inputs,
            .outputs = outputs,
            .baseline = try Baselines.parse(arena, doc, root, inputs.len, outputs.len),
            .arena_bytes = try doc.integer(root, "arena_bytes", 1 << 40),
            .weights_bytes = try doc.integer(root, "weights_bytes", 1 << 40),
            .tolerance = try doc.positive(root, "tolerance", 1),
            .golden_count = @intCast(count),
            .vector_bytes = layout.end,
            .shm_bytes = std.mem.alignForward(usize, layout.end, page_bytes),
        };
    }
};

/// Where the next tensor goes.
const Layout = struct {
    end: usize = 0,

    fn place(self: *Layout, nbytes: usize) error{TooLarge}!usize {
        const offset = self.end;
        if (nbytes > max_io_bytes - offset) return error.TooLarge;
        self.end = std.mem.alignForward(usize, offset + nbytes, tensor_alignment);
        return offset;
    }
};

fn parseTensors(arena: Allocator, doc: Document, root: document.Object, field: []const u8, layout: *Layout) refusals.Error![]const Tensor {
    const values = try doc.array(root, field, max_tensors);
    if (values.len == 0) return doc.malformed("no {s}", .{field});
    const tensors = try arena.alloc(Tensor, values.len);
    for (values, tensors, 0..) |value, *tensor, index| {
        tensor.* = try parseTensor(arena, doc, try doc.asObject(value, field), layout);
        for (tensors[0..index]) |earlier| {
            if (std.mem.eql(u8, earlier.name, tensor.name)) {
                return doc.malformed("two {s} have the same name", .{field});
            }
        }
    }
    return tensors;
}

fn parseTensor(arena: Allocator, doc: Document, object: document.Object, layout: *Layout) refusals.Error!Tensor {
    const name = try doc.string(object, "name", max_tensor_name);
    const dtype = DType.fromName(try doc.string(object, "dtype", 16)) orelse
        return doc.malformed("unknown dtype of a tensor", .{});
    const extents = try doc.array(object, "shape", max_dimensions);
    const shape = try arena.alloc(i64, extents.len);
    var nbytes: usize = dtype.size();
    for (extents, shape) |extent, *out| {
        if (extent != .integer or extent.integer < 1 or extent.integer > max_io_bytes) {
            return doc.malformed("a shape that is not positive integers", .{});
        }
        out.* = extent.integer;
        nbytes = std.math.mul(usize, nbytes, @intCast(extent.integer)) catch
            return doc.malformed("a tensor of more than {d} bytes", .{max_io_bytes});
    }
    const offset = layout.place(nbytes) catch
        return doc.malformed("inputs and outputs of more than {d} bytes", .{max_io_bytes});
    return .{ .name = name, .dtype = dtype, .shape = shape, .nbytes = nbytes, .offset = offset };
}

const testing = std.testing;

fn testModel(comptime tensors: []const u8, comptime rest: []const u8) []const u8 {
    return "{\"format\":1,\"name\":\"m\",\"version\":\"1.0.0\",\"target\":{\"name\":\"host\",\"arch\":\"x86_64\"}," ++
        tensors ++ "," ++ rest ++ "}";
}

const test_rest = "\"arena_bytes\":10,\"weights_bytes\":20,\"tolerance\":1e-4,\"golden\":{\"count\":3}";

test "tensors lie one after another at multiples of 64" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    const info = try ModelInfo.parse(arena.allocator(), &refusal, testModel(
        \\"inputs":[{"name":"a","dtype":"float32","shape":[1,17]},{"name":"b","dtype":"bool","shape":[]}],
        \\"outputs":[{"name":"a","dtype":"int64","shape":[512]}]
    , test_rest));
    try testing.expectEqual(0, info.inputs[0].offset);
    try testing.expectEqual(68, info.inputs[0].nbytes);
    try testing.expectEqual(128, info.inputs[1].offset);
    try testing.expectEqual(1, info.inputs[1].nbytes);
    try testing.expectEqual(192, info.outputs[0].offset);
    try testing.expectEqual(192 + 4096, info.vector_bytes);
    try testing.expectEqual(8192, info.shm_bytes);
    try testing.expectEqual(3, info.golden_count);
    try testing.expectEqual(1e-4, info.tolerance);
}

test "shapes, types and sizes that cannot be are refused" {
    const good_out = ",\"outputs\":[{\"name\":\"y\",\"dtype\":\"int8\",\"shape\":[1]}]";
    inline for (.{
        testModel("\"inputs\":[]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int9\",\"shape\":[1]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[0]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[-1]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[1.5]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":1}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"\",\"dtype\":\"int8\",\"shape\":[1]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int64\",\"shape\":[1073741824,1073741824,1073741824]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int64\",\"shape\":[134217728]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[1]},{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[1]}]" ++ good_out, test_rest),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[1]}]" ++ good_out, "\"arena_bytes\":10,\"weights_bytes\":20,\"tolerance\":0,\"golden\":{\"count\":3}"),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[1]}]" ++ good_out, "\"arena_bytes\":10,\"weights_bytes\":20,\"tolerance\":1e-4,\"golden\":{\"count\":0}"),
        testModel("\"inputs\":[{\"name\":\"x\",\"dtype\":\"int8\",\"shape\":[1]}]" ++ good_out, "\"arena_bytes\":-1,\"weights_bytes\":20,\"tolerance\":1e-4,\"golden\":{\"count\":1}"),
    }) |bad| {
        var arena: std.heap.ArenaAllocator = .init(testing.allocator);
        defer arena.deinit();
        var refusal: Refusal = .{};
        try testing.expectError(error.Refused, ModelInfo.parse(arena.allocator(), &refusal, bad));
        try testing.expectEqual(.package, refusal.check);
    }
}
