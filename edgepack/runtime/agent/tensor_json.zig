//! Tensors between JSON and memory.
//!
//! Reading: `data` is flat, or nested exactly as the shape is; the number of elements must match.
//! Integers must be written as integers and fit their type; BOOL is true, false, 1 or 0; floating
//! point takes any number that does not overflow its type, and null for NaN.
//! Writing: flat; floats in the fewest digits that read back as the same value of their type. JSON has
//! no NaN and no infinity: both are written as null.

const std = @import("std");
const Io = std.Io;
const DType = @import("model_info.zig").DType;
const Tensor = @import("model_info.zig").Tensor;
const max_dimensions = @import("model_info.zig").max_dimensions;
const json_tokens = @import("json_tokens.zig");
const Tokens = json_tokens.Tokens;
const Problem = @import("problem.zig").Problem;

pub const Error = json_tokens.Error || error{Problem};

/// The protocol's name of an element type.
pub fn datatype(dtype: DType) []const u8 {
    return switch (dtype) {
        .bool => "BOOL",
        .int8 => "INT8",
        .uint8 => "UINT8",
        .int16 => "INT16",
        .uint16 => "UINT16",
        .int32 => "INT32",
        .uint32 => "UINT32",
        .int64 => "INT64",
        .uint64 => "UINT64",
        .float16 => "FP16",
        .float32 => "FP32",
        .float64 => "FP64",
    };
}

/// Reads the value of "data" into `into`, which is as large as the tensor.
pub fn read(tokens: *Tokens, tensor: *const Tensor, into: []u8, problem: *Problem) Error!void {
    std.debug.assert(into.len == tensor.nbytes);
    return switch (tensor.dtype) {
        inline else => |it| readElements(it.Element(), tokens, tensor, into, problem),
    };
}

fn readElements(comptime T: type, tokens: *Tokens, tensor: *const Tensor, into: []u8, problem: *Problem) Error!void {
    var brackets: Brackets = .{ .tensor = tensor, .problem = problem };
    const total = tensor.nbytes / @sizeOf(T);
    var count: usize = 0;
    while (true) {
        switch (try tokens.peek()) {
            .array_begin => {
                _ = try tokens.next();
                try brackets.open();
            },
            .array_end => {
                _ = try tokens.next();
                if (try brackets.close()) break;
            },
            .number, .true, .false, .null => |kind| {
                try brackets.element();
                if (count == total) return badCount(tensor, problem, total, "more");
                const value = try readElement(T, tokens, kind) orelse return problem.because(
                    .bad_request,
                    "input \"{s}\": element {d} is no {s}",
                    .{ tensor.name, count, datatype(tensor.dtype) },
                );
                const bytes = std.mem.asBytes(&value);
                @memcpy(into[count * @sizeOf(T) ..][0..@sizeOf(T)], bytes);
                count += 1;
            },
            else => return problem.because(.bad_request, "input \"{s}\": data is not an array of numbers", .{tensor.name}),
        }
    }
    if (count != total) return badCount(tensor, problem, total, "fewer");
}

fn badCount(tensor: *const Tensor, problem: *Problem, total: usize, word: []const u8) error{Problem} {
    return problem.because(.bad_request, "input \"{s}\": data has {s} than the {d} elements of its shape", .{ tensor.name, word, total });
}

/// Null where the value is none of this type.
fn readElement(comptime T: type, tokens: *Tokens, kind: json_tokens.Kind) json_tokens.Error!?T {
    if (kind != .number) {
        _ = try tokens.next();
        if (T == bool) return if (kind == .null) null else kind == .true;
        return if (@typeInfo(T) == .float and kind == .null) std.math.nan(T) else null;
    }
    const text = try tokens.number();
    switch (@typeInfo(T)) {
        .bool => return if (std.mem.eql(u8, text, "1")) true else if (std.mem.eql(u8, text, "0")) false else null,
        .int => return std.fmt.parseInt(T, text, 10) catch null,
        else => {
            // Half precision by way of double: exact for every number that a half can print as.
            const Parsed = if (T == f16) f64 else T;
            const value: T = @floatCast(std.fmt.parseFloat(Parsed, text) catch return null);
            return if (std.math.isFinite(value)) value else null; // overflowed
        },
    }
}

/// Follows the nesting of `data`: all elements lie equally deep, which is 1 (flat) or as deep as the
/// shape, and then every array has the extent of its dimension.
const Brackets = struct {
    tensor: *const Tensor,
    problem: *Problem,
    depth: usize = 0,
    leaf_depth: ?usize = null,
    /// Members of the open array at each depth so far.
    members: [max_dimensions]i64 = undefined,

    fn open(self: *Brackets) error{Problem}!void {
        if (self.depth == @max(self.tensor.shape.len, 1)) return self.refuse();
        if (self.depth > 0) self.members[self.depth - 1] += 1;
        self.members[self.depth] = 0;
        self.depth += 1;
    }

    fn element(self: *Brackets) error{Problem}!void {
        if (self.depth == 0) return self.refuse();
        if (self.depth != self.leaf_depth orelse self.depth) return self.refuse();
        self.leaf_depth = self.depth;
        self.members[self.depth - 1] += 1;
    }

    /// True when the outermost array is closed.
    fn close(self: *Brackets) error{Problem}!bool {
        self.depth -= 1;
        const rank = self.tensor.shape.len;
        const leaf_depth = self.leaf_depth orelse return self.refuse(); // empty
        if (leaf_depth > 1) {
            if (leaf_depth != rank or self.members[self.depth] != self.tensor.shape[self.depth]) return self.refuse();
        }
        return self.depth == 0;
    }

    fn refuse(self: *Brackets) error{Problem} {
        return self.problem.because(.bad_request, "input \"{s}\": data is neither flat nor nested like its shape {f}", .{
            self.tensor.name, Shape{ .extents = self.tensor.shape },
        });
    }
};

/// `[1,3,224,224]`, in words and in JSON.
pub const Shape = struct {
    extents: []const i64,

    pub fn format(self: Shape, writer: *Io.Writer) Io.Writer.Error!void {
        try writer.writeByte('[');
        for (self.extents, 0..) |extent, axis| {
            if (axis > 0) try writer.writeByte(',');
            try writer.print("{d}", .{extent});
        }
        try writer.writeByte(']');
    }
};

/// Writes the value of "data".
pub fn write(writer: *Io.Writer, dtype: DType, bytes: []const u8) Io.Writer.Error!void {
    return switch (dtype) {
        inline else => |it| writeElements(it.Element(), writer, bytes),
    };
}

fn writeElements(comptime T: type, writer: *Io.Writer, bytes: []const u8) Io.Writer.Error!void {
    try writer.writeByte('[');
    for (0..bytes.len / @sizeOf(T)) |index| {
        if (index > 0) try writer.writeByte(',');
        const raw = bytes[index * @sizeOf(T) ..][0..@sizeOf(T)];
        switch (@typeInfo(T)) {
            .bool => try writer.writeAll(if (raw[0] != 0) "true" else "false"),
            .int => try writer.printInt(std.mem.bytesToValue(T, raw), 10, .lower, .{}),
            // Every half is a float: its shortest digits as a float read back as the same half.
            else => try writeFloat(if (T == f16) f32 else T, writer, std.mem.bytesToValue(T, raw)),
        }
    }
    try writer.writeByte(']');
}

/// Null where it is not finite.
pub fn writeFloat(comptime T: type, writer: *Io.Writer, value: T) Io.Writer.Error!void {
    if (!std.math.isFinite(value)) return writer.writeAll("null");
    const magnitude = @abs(value);
    const plain = magnitude == 0 or (magnitude >= 1e-5 and magnitude < 1e16);
    var buffer: [64]u8 = undefined;
    const text = std.fmt.float.render(&buffer, value, .{ .mode = if (plain) .decimal else .scientific }) catch unreachable; // 1e16 needs 18
    try writer.writeAll(text);
    // A reader that tells integers from floats by their look is told the truth.
    if (plain and std.mem.findScalar(u8, text, '.') == null) try writer.writeAll(".0");
}

test {
    _ = @import("tensor_json_test.zig");
}
