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
const InputData = @import("input_data.zig").InputData;
const json_fields = @import("json_fields.zig");
const Seen = json_fields.Seen;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const Problem = @import("problem.zig").Problem;
const repeated_request = @import("repeated_request.zig");
const RepeatedRequest = repeated_request.RepeatedRequest;
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
    /// The last request of this client for this model.
    last: ?*RepeatedRequest = null,
};

/// Reads a whole request into `infer` (which it points into, and which is to be released) and `staging`.
/// `spare` holds the data of an input whose name follows it.
pub fn read(infer: *Infer, source: Source, info: *const ModelInfo, staging: []u8, spare: std.mem.Allocator, problem: *Problem) Error!void {
    infer.reset();
    var reading: Reading = .{
        .infer = infer,
        .tokens = undefined,
        .source = source,
        .data = .{ .info = info, .staging = staging, .regions = source.regions, .problem = problem },
        .spare = spare,
        .problem = problem,
    };
    const json_bytes = source.json_bytes orelse {
        if (!try reading.readShort(source.total_bytes)) try reading.readJson(source.body);
        return infer.settle(info);
    };
    if (json_bytes > source.total_bytes orelse json_bytes) {
        return problem.because(.bad_request, "Inference-Header-Content-Length is {d}, and the body has {d} bytes", .{ json_bytes, source.total_bytes.? });
    }
    if (json_bytes == 0) {
        infer.binary_output = true; // asked for in the form that it comes in
        try reading.data.takeRaw();
    } else if (!try reading.readShort(json_bytes)) {
        var buffer: [4 << 10]u8 = undefined;
        var json: Io.Reader.Limited = .init(source.body, .limited64(json_bytes), &buffer);
        try reading.readJson(&json.interface);
    }
    try reading.data.readBinary(source.body, if (source.total_bytes) |total| total - json_bytes else null);
    infer.settle(info);
}

/// The state of one request's reading.
const Reading = struct {
    infer: *Infer,
    tokens: *Tokens,
    source: Source,
    data: InputData,
    spare: std.mem.Allocator,
    problem: *Problem,
    filled: [model_info.max_tensors]bool = @splat(false),

    /// JSON of this length where it is short enough to be kept; false, with nothing read, where it is not.
    fn readShort(self: *Reading, json_bytes: ?u64) Error!bool {
        const last = self.source.last orelse return false;
        const bytes = json_bytes orelse return false;
        if (bytes > repeated_request.max_text_bytes) return false;
        const text = self.source.body.peek(@intCast(bytes)) catch |err| switch (err) {
            error.ReadFailed => return error.ReadFailed,
            error.EndOfStream => return false,
        };
        const divided = self.source.json_bytes != null;
        if (last.is(text, divided)) {
            try last.repeat(self.infer, &self.data);
        } else {
            last.begin();
            var reader: Io.Reader = .fixed(text);
            try self.readJson(&reader);
            last.keep(text, divided, self.infer);
        }
        self.source.body.toss(text.len);
        return true;
    }

    /// This request is to be parsed each time.
    fn forget(self: *Reading) void {
        if (self.source.last) |last| last.forget();
    }

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
                .id => {
                    self.forget();
                    self.infer.id = try json_fields.string(self.tokens, "id", &self.infer.id_buffer, self.problem);
                },
                .inputs => try self.readEach(readInput),
                .outputs => try self.readEach(readOutput),
                .parameters => try self.readParameters(),
            }
        }
        try self.tokens.expect(.end);
        for (self.data.info.inputs, self.filled[0..self.data.info.inputs.len]) |input, filled| {
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
        var named: ?*const Tensor = if (self.data.info.inputs.len == 1) &self.data.info.inputs[0] else null;
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
                    try tensor_json.read(self.tokens, tensor, self.data.placeOf(tensor), self.problem);
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
        try tensor_json.read(&tokens, tensor, self.data.placeOf(tensor), self.problem);
    }

    /// Sees to it that the input's data is in one place, and fetches or expects it where that is not the
    /// JSON.
    fn place(self: *Reading, tensor: *const Tensor, parameters: *const TensorParameters, in_json: bool) error{Problem}!void {
        const places = [_]bool{ in_json, parameters.binary_bytes != null, parameters.region_len != null };
        switch (std.mem.countScalar(bool, &places, true)) {
            0 => return self.problem.because(.bad_request, "input \"{s}\" has no data", .{tensor.name}),
            1 => if (in_json) return self.forget(),
            else => return self.problem.because(.bad_request, "input \"{s}\" has its data twice", .{tensor.name}),
        }
        if (parameters.binary_bytes != null and self.source.json_bytes == null) {
            return self.problem.because(.bad_request, "input \"{s}\": binary data needs the header Inference-Header-Content-Length", .{tensor.name});
        }
        try self.data.take(tensor, parameters);
        if (self.source.last) |last| last.addInput(tensor - self.data.info.inputs.ptr, parameters);
    }

    /// The input of the name that follows, once.
    fn claim(self: *Reading) json_fields.Error!*const Tensor {
        var buffer: [model_info.max_tensor_name]u8 = undefined;
        const name = try json_fields.string(self.tokens, "name", &buffer, self.problem);
        for (self.data.info.inputs, 0..) |*tensor, index| {
            if (!std.mem.eql(u8, tensor.name, name)) continue;
            if (self.filled[index]) return self.problem.because(.bad_request, "input \"{s}\" is there twice", .{name});
            self.filled[index] = true;
            return tensor;
        }
        return self.problem.because(.bad_request, "the model has no input \"{s}\"; the first is \"{s}\"", .{ name, self.data.info.inputs[0].name });
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
                .capture => {
                    self.forget();
                    self.infer.capture.asked = try json_fields.boolean(self.tokens, "capture", self.problem);
                },
                .capture_json => {
                    self.forget();
                    self.infer.capture.caller = try json_fields.object(self.tokens, "capture_json", &self.infer.capture.caller_buffer, self.problem);
                },
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
        const outputs = self.data.info.outputs;
        const index = for (outputs, 0..) |output, index| {
            if (std.mem.eql(u8, output.name, name)) break index;
        } else return self.problem.because(.bad_request, "the model has no output \"{s}\"; the first is \"{s}\"", .{ name, outputs[0].name });
        try self.infer.want(self.data.info, @intCast(index), &parameters, self.source.regions, self.problem);
        if (self.source.last) |last| last.addOutput(index, &parameters);
    }
};

test {
    _ = @import("infer_request_test.zig");
}
