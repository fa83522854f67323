//! Reads an infer request of the Open Inference Protocol, version 2, with the binary tensor data
//! extension: JSON, and behind it the data of those inputs that say so, in their order, without gaps;
//! and with the shared memory extension, by which a tensor may be elsewhere altogether.
//!
//! It is read as it arrives, each tensor straight into `staging`, memory laid out like that which the
//! worker shares. It is not the shared memory itself because a client that sends slowly must not keep
//! the model from others.

const std = @import("std");
const Io = std.Io;
const DeclaredTensor = @import("declared_tensor.zig").DeclaredTensor;
const Infer = @import("oip.zig").Infer;
const json_fields = @import("json_fields.zig");
const Seen = json_fields.Seen;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const Problem = @import("problem.zig").Problem;
const shared_memory = @import("shared_memory.zig");
const tensor_json = @import("tensor_json.zig");
const Shape = tensor_json.Shape;
const TensorParameters = @import("tensor_parameters.zig").TensorParameters;
const Tokens = @import("json_tokens.zig").Tokens;

/// What JSON may spend on an element: a float64 in full takes 25 with its comma, a careless printer's
/// more. Binary data takes 8 at most.
const json_bytes_per_element = 32;
const json_bytes_slack = 64 << 10;

/// The largest body that an infer request for this model may have.
pub fn maxBytes(info: *const ModelInfo) u64 {
    var bytes: u64 = json_bytes_slack;
    for (info.inputs) |input| bytes += input.nbytes / input.dtype.size() * json_bytes_per_element + input.name.len * 6;
    return bytes;
}

pub const Error = error{ Problem, ReadFailed };

pub const Source = struct {
    body: *Io.Reader,
    /// How much of it is JSON; all, where that is not said.
    json_bytes: ?u64 = null,
    /// How long it is, where that is known beforehand.
    total_bytes: ?u64 = null,
    /// Null for a client that may use none.
    regions: ?shared_memory.Access = null,
};

/// Reads a whole request into `infer` (which it points into, and which is to be released) and `staging`.
/// `spare` holds the data of an input whose name follows it.
pub fn read(infer: *Infer, source: Source, info: *const ModelInfo, staging: []u8, spare: std.mem.Allocator, problem: *Problem) Error!void {
    infer.* = .{};
    var reading: Reading = .{ .infer = infer, .tokens = undefined, .source = source, .info = info, .staging = staging, .spare = spare, .problem = problem };
    const json_bytes = source.json_bytes orelse {
        try reading.readJson(source.body);
        return infer.settle(info);
    };
    if (json_bytes > source.total_bytes orelse json_bytes) {
        return problem.because(.bad_request, "Inference-Header-Content-Length is {d}, and the body has {d} bytes", .{ json_bytes, source.total_bytes.? });
    }
    if (json_bytes == 0) {
        try reading.takeRaw();
    } else {
        var buffer: [4 << 10]u8 = undefined;
        var json: Io.Reader.Limited = .init(source.body, .limited64(json_bytes), &buffer);
        try reading.readJson(&json.interface);
    }
    try reading.readBinary(json_bytes);
    infer.settle(info);
}

/// The state of one request's reading.
const Reading = struct {
    infer: *Infer,
    tokens: *Tokens,
    source: Source,
    info: *const ModelInfo,
    staging: []u8,
    spare: std.mem.Allocator,
    problem: *Problem,
    filled: [model_info.max_tensors]bool = @splat(false),
    /// Inputs whose data follows the JSON, in this order.
    binary: [model_info.max_tensors]*const Tensor = undefined,
    binary_len: usize = 0,

    fn readJson(self: *Reading, reader: *Io.Reader) Error!void {
        var tokens: Tokens = undefined;
        tokens.init(reader);
        self.tokens = &tokens;
        self.readRequest() catch |err| return switch (err) {
            error.Problem => error.Problem,
            else => |e| json_fields.explain(e, self.problem),
        };
    }

    fn readRequest(self: *Reading) json_fields.Error!void {
        var seen: Seen(enum { id, inputs, outputs, parameters }) = .{};
        try self.tokens.expect(.object_begin);
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, self.problem) orelse {
                try self.tokens.skip();
                continue;
            }) {
                .id => self.infer.id = try json_fields.string(self.tokens, "id", &self.infer.id_buffer, self.problem),
                .inputs => try self.readEach(readInput),
                .outputs => try self.readEach(readOutput),
                .parameters => try self.readParameters(),
            }
        }
        try self.tokens.expect(.end);
        for (self.info.inputs, self.filled[0..self.info.inputs.len]) |input, filled| {
            if (!filled) return self.problem.because(.bad_request, "input \"{s}\" ({s} {f}) is missing", .{
                input.name, tensor_json.datatype(input.dtype), Shape{ .extents = input.shape },
            });
        }
    }

    fn readEach(self: *Reading, comptime readOne: fn (*Reading) json_fields.Error!void) json_fields.Error!void {
        try self.tokens.expect(.array_begin);
        while (try self.tokens.peek() != .array_end) {
            try self.tokens.expect(.object_begin);
            try readOne(self);
        }
        _ = try self.tokens.next();
    }

    /// The fields come in any order. Data that comes before the name, as it does where keys are sorted,
    /// is kept as text until the name is known; a model with one input needs no name to know it.
    fn readInput(self: *Reading) json_fields.Error!void {
        var seen: Seen(enum { name, shape, datatype, data, parameters }) = .{};
        var named: ?*const Tensor = if (self.info.inputs.len == 1) &self.info.inputs[0] else null;
        var declared: DeclaredTensor = .{};
        var parameters: TensorParameters = .{};
        var kept: std.ArrayList(u8) = .empty;
        defer kept.deinit(self.spare);
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, self.problem) orelse {
                try self.tokens.skip();
                continue;
            }) {
                .name => named = try self.claim(),
                .datatype => try declared.readDatatype(self.tokens, self.problem),
                .shape => try declared.readShape(self.tokens, self.problem),
                .parameters => try parameters.read(self.tokens, self.problem),
                .data => if (named) |tensor| {
                    try declared.check(tensor, self.problem);
                    try tensor_json.read(self.tokens, tensor, self.bytesOf(tensor), self.problem);
                } else self.tokens.copyArray(self.spare, &kept) catch |err| switch (err) { // the body's limit bounds it
                    error.OutOfMemory => return self.problem.because(.service_unavailable, "out of memory", .{}),
                    else => |e| return e,
                },
            }
        }
        if (!seen.has(.name)) return self.problem.because(.bad_request, "an input without a name", .{});
        const tensor = named.?;
        inline for (.{ .datatype, .shape }) |field| {
            if (!seen.has(field)) return self.problem.because(.bad_request, "input \"{s}\" has no {t}", .{ tensor.name, field });
        }
        try declared.check(tensor, self.problem);
        try self.place(tensor, &parameters, seen.has(.data));
        if (kept.items.len > 0) try self.readKept(tensor, kept.items);
    }

    fn readKept(self: *Reading, tensor: *const Tensor, text: []const u8) json_fields.Error!void {
        var again: Io.Reader = .fixed(text);
        var tokens: Tokens = undefined;
        tokens.init(&again);
        try tensor_json.read(&tokens, tensor, self.bytesOf(tensor), self.problem);
    }

    /// Sees to it that the input's data is in one place, and fetches or expects it where that is not the
    /// JSON.
    fn place(self: *Reading, tensor: *const Tensor, parameters: *const TensorParameters, in_json: bool) error{Problem}!void {
        const places = [_]bool{ in_json, parameters.binary_bytes != null, parameters.region != null };
        switch (std.mem.countScalar(bool, &places, true)) {
            0 => return self.problem.because(.bad_request, "input \"{s}\" has no data", .{tensor.name}),
            1 => if (in_json) return,
            else => return self.problem.because(.bad_request, "input \"{s}\" has its data twice", .{tensor.name}),
        }
        const bytes = parameters.binary_bytes orelse return self.readShared(tensor, parameters);
        if (self.source.json_bytes == null) {
            return self.problem.because(.bad_request, "input \"{s}\": binary data needs the header Inference-Header-Content-Length", .{tensor.name});
        }
        if (bytes != tensor.nbytes) {
            return self.problem.because(.bad_request, "input \"{s}\": binary_data_size is {d}, expected {d}", .{ tensor.name, bytes, tensor.nbytes });
        }
        self.addBinary(tensor);
    }

    fn readShared(self: *Reading, tensor: *const Tensor, parameters: *const TensorParameters) error{Problem}!void {
        if (parameters.region_bytes != tensor.nbytes) {
            return self.problem.because(.bad_request, "input \"{s}\": shared_memory_byte_size is {d}, expected {d}", .{ tensor.name, parameters.region_bytes, tensor.nbytes });
        }
        const regions = try shared_memory.allowed(self.source.regions, self.problem);
        const region = try regions.acquire(parameters.region.?, self.problem);
        defer regions.release(region);
        try region.read(parameters.region_offset, self.bytesOf(tensor), self.problem);
        try self.checkBools(tensor);
    }

    /// Each input comes once, see claim(): there is room.
    fn addBinary(self: *Reading, tensor: *const Tensor) void {
        self.binary[self.binary_len] = tensor;
        self.binary_len += 1;
    }

    /// A body without JSON is the data of the only input, and asks for the outputs in the same form.
    fn takeRaw(self: *Reading) error{Problem}!void {
        if (self.info.inputs.len != 1) {
            return self.problem.because(.bad_request, "a body without JSON is for models with one input; this has {d}", .{self.info.inputs.len});
        }
        self.addBinary(&self.info.inputs[0]);
        self.infer.binary_output = true;
    }

    fn readBinary(self: *Reading, json_bytes: u64) Error!void {
        var expected: u64 = 0;
        for (self.binary[0..self.binary_len]) |tensor| expected += tensor.nbytes;
        if (self.source.total_bytes) |total| if (total - json_bytes != expected) {
            return self.problem.because(.bad_request, "{d} bytes follow the JSON, expected {d}", .{ total - json_bytes, expected });
        };
        for (self.binary[0..self.binary_len]) |tensor| {
            self.source.body.readSliceAll(self.bytesOf(tensor)) catch |err| return switch (err) {
                error.ReadFailed => error.ReadFailed,
                error.EndOfStream => self.problem.because(.bad_request, "fewer bytes follow the JSON than the expected {d}", .{expected}),
            };
            try self.checkBools(tensor);
        }
        _ = self.source.body.peekByte() catch |err| return switch (err) {
            error.ReadFailed => error.ReadFailed,
            error.EndOfStream => {},
        };
        return self.problem.because(.bad_request, "more bytes follow the JSON than the expected {d}", .{expected});
    }

    /// What a kernel does with a bool that is neither is its own affair: it gets none.
    fn checkBools(self: *Reading, tensor: *const Tensor) error{Problem}!void {
        if (tensor.dtype != .bool) return;
        for (self.bytesOf(tensor), 0..) |byte, index| {
            if (byte > 1) return self.problem.because(.bad_request, "input \"{s}\": element {d} is no BOOL", .{ tensor.name, index });
        }
    }

    fn bytesOf(self: *Reading, tensor: *const Tensor) []u8 {
        return self.staging[tensor.offset..][0..tensor.nbytes];
    }

    /// The input of the name that follows, once.
    fn claim(self: *Reading) json_fields.Error!*const Tensor {
        var buffer: [model_info.max_tensor_name]u8 = undefined;
        const name = try json_fields.string(self.tokens, "name", &buffer, self.problem);
        for (self.info.inputs, 0..) |*tensor, index| {
            if (!std.mem.eql(u8, tensor.name, name)) continue;
            if (self.filled[index]) return self.problem.because(.bad_request, "input \"{s}\" is there twice", .{name});
            self.filled[index] = true;
            return tensor;
        }
        return self.problem.because(.bad_request, "the model has no input \"{s}\"; the first is \"{s}\"", .{ name, self.info.inputs[0].name });
    }

    /// Of the request as a whole: the form of the outputs, and whether it is captured.
    fn readParameters(self: *Reading) json_fields.Error!void {
        var seen: Seen(enum { binary_data_output, capture, capture_json }) = .{};
        try self.tokens.expect(.object_begin);
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, self.problem) orelse {
                try self.tokens.skip();
                continue;
            }) {
                .binary_data_output => self.infer.binary_output = try json_fields.boolean(self.tokens, "binary_data_output", self.problem),
                .capture => self.infer.capture.asked = try json_fields.boolean(self.tokens, "capture", self.problem),
                .capture_json => self.infer.capture.caller = try json_fields.object(self.tokens, "capture_json", &self.infer.capture.caller_buffer, self.problem),
            }
        }
    }

    fn readOutput(self: *Reading) json_fields.Error!void {
        var seen: Seen(enum { name, parameters }) = .{};
        var name_buffer: [model_info.max_tensor_name]u8 = undefined;
        var name: []const u8 = "";
        var parameters: TensorParameters = .{};
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        while (try self.tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, self.problem) orelse {
                try self.tokens.skip();
                continue;
            }) {
                .name => name = try json_fields.string(self.tokens, "name", &name_buffer, self.problem),
                .parameters => try parameters.read(self.tokens, self.problem),
            }
        }
        if (!seen.has(.name)) return self.problem.because(.bad_request, "an output without a name", .{});
        try self.infer.want(self.info, name, &parameters, self.source.regions, self.problem);
    }
};

test {
    _ = @import("infer_request_test.zig");
}
