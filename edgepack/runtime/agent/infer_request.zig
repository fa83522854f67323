//! Reads an infer request of the Open Inference Protocol, version 2.
//!
//! It is read as it arrives, each tensor straight into `staging`, memory laid out like that which the
//! worker shares. It is not the shared memory itself because a client that sends slowly must not keep
//! the model from others.

const std = @import("std");
const Io = std.Io;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const Infer = @import("oip.zig").Infer;
const Tokens = @import("json_tokens.zig").Tokens;
const Problem = @import("problem.zig").Problem;
const tensor_json = @import("tensor_json.zig");
const Shape = tensor_json.Shape;

const max_key_bytes = 64;

/// What JSON may spend on an element: a float64 in full takes 25 with its comma, a careless printer's more.
const json_bytes_per_element = 32;
const json_bytes_slack = 64 << 10;

/// The largest body that an infer request for this model may have.
pub fn maxBytes(info: *const ModelInfo) u64 {
    var bytes: u64 = json_bytes_slack;
    for (info.inputs) |input| bytes += input.nbytes / input.dtype.size() * json_bytes_per_element + input.name.len * 6;
    return bytes;
}

pub const Error = error{ Problem, ReadFailed };

/// Reads a whole request into `infer` (which it points into) and `staging`. `spare` holds the data of
/// an input whose name follows it.
pub fn read(infer: *Infer, body: *Io.Reader, info: *const ModelInfo, staging: []u8, spare: std.mem.Allocator, problem: *Problem) Error!void {
    infer.* = .{};
    var tokens: Tokens = undefined;
    tokens.init(body);
    var reading: Reading = .{ .infer = infer, .tokens = &tokens, .info = info, .staging = staging, .spare = spare, .problem = problem };
    reading.readRequest() catch |err| return switch (err) {
        error.Problem, error.ReadFailed => |e| e,
        error.Syntax => problem.because(.bad_request, "the request is not well-formed JSON of the expected kind", .{}),
        error.TooLong => problem.because(.bad_request, "a string or number in the request is too long", .{}),
        error.TooDeep => problem.because(.bad_request, "the request is nested too deep", .{}),
    };
}

/// The state of one request's reading.
const Reading = struct {
    infer: *Infer,
    tokens: *Tokens,
    info: *const ModelInfo,
    staging: []u8,
    spare: std.mem.Allocator,
    problem: *Problem,
    filled: [model_info.max_tensors]bool = @splat(false),

    fn readRequest(self: *Reading) tensor_json.Error!void {
        var seen: Seen(enum { id, inputs, outputs }) = .{};
        try self.tokens.expect(.object_begin);
        var key_buffer: [max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, self.problem) orelse {
                try self.tokens.skip();
                continue;
            }) {
                .id => self.infer.id = try self.readString("id", &self.infer.id_buffer),
                .inputs => try self.readInputs(),
                .outputs => try self.readOutputs(),
            }
        }
        try self.tokens.expect(.end);
        for (self.info.inputs, self.filled[0..self.info.inputs.len]) |input, filled| {
            if (!filled) return self.problem.because(.bad_request, "input \"{s}\" ({s} {f}) is missing", .{
                input.name, tensor_json.datatype(input.dtype), Shape{ .extents = input.shape },
            });
        }
    }

    fn readInputs(self: *Reading) tensor_json.Error!void {
        try self.tokens.expect(.array_begin);
        while (try self.tokens.peek() != .array_end) {
            try self.tokens.expect(.object_begin);
            try self.readInput();
        }
        _ = try self.tokens.next();
    }

    /// The fields come in any order. Data that comes before the name, as it does where keys are sorted,
    /// is kept as text until the name is known; a model with one input needs no name to know it.
    fn readInput(self: *Reading) tensor_json.Error!void {
        var seen: Seen(enum { name, shape, datatype, data, parameters }) = .{};
        var named: ?*const Tensor = if (self.info.inputs.len == 1) &self.info.inputs[0] else null;
        var declared: Declared = .{};
        var kept: std.ArrayList(u8) = .empty;
        defer kept.deinit(self.spare);
        var key_buffer: [max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, self.problem) orelse {
                try self.tokens.skip();
                continue;
            }) {
                .name => named = try self.claim(),
                .datatype => declared.datatype = try self.readString("datatype", &declared.datatype_buffer),
                .shape => try self.readShape(&declared),
                .parameters => try self.readParameters(),
                .data => if (named) |tensor| {
                    try declared.check(tensor, self.problem);
                    try tensor_json.read(self.tokens, tensor, self.bytesOf(tensor), self.problem);
                } else try self.keep(&kept),
            }
        }
        if (!seen.has(.name)) return self.problem.because(.bad_request, "an input without a name", .{});
        const tensor = named.?;
        inline for (.{ .datatype, .shape, .data }) |field| {
            if (!seen.has(field)) return self.problem.because(.bad_request, "input \"{s}\" has no {t}", .{ tensor.name, field });
        }
        try declared.check(tensor, self.problem);
        if (kept.items.len == 0) return;
        var again: Io.Reader = .fixed(kept.items);
        var tokens: Tokens = undefined;
        tokens.init(&again);
        try tensor_json.read(&tokens, tensor, self.bytesOf(tensor), self.problem);
    }

    fn bytesOf(self: *Reading, tensor: *const Tensor) []u8 {
        return self.staging[tensor.offset..][0..tensor.nbytes];
    }

    /// The input of the name that follows, once.
    fn claim(self: *Reading) tensor_json.Error!*const Tensor {
        var buffer: [model_info.max_tensor_name]u8 = undefined;
        const name = try self.readString("name", &buffer);
        for (self.info.inputs, 0..) |*tensor, index| {
            if (!std.mem.eql(u8, tensor.name, name)) continue;
            if (self.filled[index]) return self.problem.because(.bad_request, "input \"{s}\" is there twice", .{name});
            self.filled[index] = true;
            return tensor;
        }
        return self.problem.because(.bad_request, "the model has no input \"{s}\"; the first is \"{s}\"", .{ name, self.info.inputs[0].name });
    }

    fn readShape(self: *Reading, declared: *Declared) tensor_json.Error!void {
        try self.tokens.expect(.array_begin);
        while (try self.tokens.peek() == .number) {
            const text = try self.tokens.number();
            if (declared.rank == declared.extents.len) return self.problem.because(.bad_request, "a shape of more than {d} dimensions", .{declared.extents.len});
            declared.extents[declared.rank] = std.fmt.parseInt(i64, text, 10) catch
                return self.problem.because(.bad_request, "a shape that is not integers", .{});
            declared.rank += 1;
        }
        try self.tokens.expect(.array_end);
        declared.has_shape = true;
    }

    /// Only one parameter matters: that the data is not here but behind the JSON.
    fn readParameters(self: *Reading) tensor_json.Error!void {
        try self.tokens.expect(.object_begin);
        var key_buffer: [max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            if (std.mem.eql(u8, key, "binary_data_size")) {
                return self.problem.because(.bad_request, "binary tensor data is not supported; send it as JSON", .{});
            }
            try self.tokens.skip();
        }
    }

    fn readOutputs(self: *Reading) tensor_json.Error!void {
        try self.tokens.expect(.array_begin);
        while (try self.tokens.peek() != .array_end) {
            try self.tokens.expect(.object_begin);
            try self.readOutput();
        }
        _ = try self.tokens.next();
    }

    fn readOutput(self: *Reading) tensor_json.Error!void {
        var seen: Seen(enum { name }) = .{};
        var key_buffer: [max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            if (try seen.field(key, self.problem) == null) {
                try self.tokens.skip();
                continue;
            }
            var buffer: [model_info.max_tensor_name]u8 = undefined;
            const name = try self.readString("name", &buffer);
            const index = for (self.info.outputs, 0..) |output, index| {
                if (std.mem.eql(u8, output.name, name)) break index;
            } else return self.problem.because(.bad_request, "the model has no output \"{s}\"; the first is \"{s}\"", .{ name, self.info.outputs[0].name });
            const chosen = self.infer.outputs[0..self.infer.outputs_len];
            if (std.mem.findScalar(u8, chosen, @intCast(index)) != null) {
                return self.problem.because(.bad_request, "output \"{s}\" is asked for twice", .{name});
            }
            self.infer.outputs[self.infer.outputs_len] = @intCast(index);
            self.infer.outputs_len += 1;
        }
        if (!seen.has(.name)) return self.problem.because(.bad_request, "an output without a name", .{});
    }

    fn readString(self: *Reading, what: []const u8, buffer: []u8) tensor_json.Error![]const u8 {
        if (try self.tokens.peek() != .string) return self.problem.because(.bad_request, "{s} is not a string", .{what});
        return self.tokens.string(buffer) catch |err| switch (err) {
            error.TooLong => self.problem.because(.bad_request, "{s} is longer than {d} bytes", .{ what, buffer.len }),
            else => |e| e,
        };
    }

    /// Copies "data", as text, to be read when the name is known. The body's limit bounds it.
    fn keep(self: *Reading, kept: *std.ArrayList(u8)) tensor_json.Error!void {
        var depth: usize = 0;
        while (true) {
            const kind = try self.tokens.peek();
            const text = switch (kind) {
                .array_begin => "[",
                .array_end => "]",
                .number => try self.tokens.number(),
                .true, .false, .null => @tagName(kind),
                else => return error.Syntax,
            };
            if (kind != .number) _ = try self.tokens.next();
            const separate = kept.items.len > 0 and kind != .array_end and kept.items[kept.items.len - 1] != '[';
            if (separate) try self.append(kept, ",");
            try self.append(kept, text);
            if (kind == .array_begin) depth += 1;
            if (kind == .array_end) depth -= 1;
            if (depth == 0) return;
        }
    }

    fn append(self: *Reading, kept: *std.ArrayList(u8), text: []const u8) error{Problem}!void {
        kept.appendSlice(self.spare, text) catch return self.problem.because(.service_unavailable, "out of memory", .{});
    }
};

/// What the request says of a tensor, to be compared with what the model takes.
const Declared = struct {
    datatype_buffer: [16]u8 = undefined,
    datatype: ?[]const u8 = null,
    extents: [model_info.max_dimensions]i64 = undefined,
    rank: usize = 0,
    has_shape: bool = false,

    /// Compares as far as it is known by now.
    fn check(self: *const Declared, tensor: *const Tensor, problem: *Problem) error{Problem}!void {
        const expected = tensor_json.datatype(tensor.dtype);
        if (self.datatype) |given| if (!std.mem.eql(u8, given, expected)) {
            return problem.because(.bad_request, "input \"{s}\" has datatype {s}, expected {s}", .{ tensor.name, given, expected });
        };
        const given = self.extents[0..self.rank];
        if (self.has_shape and !std.mem.eql(i64, given, tensor.shape)) {
            return problem.because(.bad_request, "input \"{s}\" has shape {f}, expected {f}", .{
                tensor.name, Shape{ .extents = given }, Shape{ .extents = tensor.shape },
            });
        }
    }
};

/// Which fields of an object have come; a field that comes twice is refused.
fn Seen(comptime Field: type) type {
    return struct {
        set: std.EnumSet(Field) = .{},

        const Self = @This();

        /// Null for a key that is none of ours.
        fn field(self: *Self, key: []const u8, problem: *Problem) error{Problem}!?Field {
            const known = std.meta.stringToEnum(Field, key) orelse return null;
            if (self.set.contains(known)) return problem.because(.bad_request, "\"{s}\" is there twice", .{key});
            self.set.insert(known);
            return known;
        }

        fn has(self: *const Self, known: Field) bool {
            return self.set.contains(known);
        }
    };
}

test {
    _ = @import("infer_request_test.zig");
}
