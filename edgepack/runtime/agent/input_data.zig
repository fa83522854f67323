//! The data of inputs that is not in a request's JSON: behind it, or in shared memory.

const std = @import("std");
const Io = std.Io;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const Problem = @import("problem.zig").Problem;
const shared_memory = @import("shared_memory.zig");
const TensorParameters = @import("tensor_parameters.zig").TensorParameters;

/// Gets it to where `staging` has room for it.
pub const InputData = struct {
    info: *const ModelInfo,
    staging: []u8,
    /// Null for a client that may use none.
    regions: ?shared_memory.Access,
    problem: *Problem,
    /// Inputs whose data follows the JSON, in this order.
    binary: [model_info.max_tensors]*const Tensor = undefined,
    binary_len: usize = 0,

    /// Where an input's data goes.
    pub fn placeOf(self: *const InputData, tensor: *const Tensor) []u8 {
        return self.staging[tensor.offset..][0..tensor.nbytes];
    }

    /// Fetches or expects what is where `parameters` say. No input may be taken twice.
    pub fn take(self: *InputData, tensor: *const Tensor, parameters: *const TensorParameters) error{Problem}!void {
        if (parameters.region_len != null) return self.takeShared(tensor, parameters);
        if (parameters.binary_bytes.? != tensor.nbytes) {
            return self.problem.because(.bad_request, "input \"{s}\": binary_data_size is {d}, expected {d}", .{ tensor.name, parameters.binary_bytes.?, tensor.nbytes });
        }
        self.expectBinary(tensor);
    }

    /// A body without JSON is the data of the only input.
    pub fn takeRaw(self: *InputData) error{Problem}!void {
        if (self.info.inputs.len != 1) {
            return self.problem.because(.bad_request, "a body without JSON is for models with one input; this has {d}", .{self.info.inputs.len});
        }
        self.expectBinary(&self.info.inputs[0]);
    }

    fn expectBinary(self: *InputData, tensor: *const Tensor) void {
        self.binary[self.binary_len] = tensor;
        self.binary_len += 1;
    }

    fn takeShared(self: *InputData, tensor: *const Tensor, parameters: *const TensorParameters) error{Problem}!void {
        if (parameters.region_bytes != tensor.nbytes) {
            return self.problem.because(.bad_request, "input \"{s}\": shared_memory_byte_size is {d}, expected {d}", .{ tensor.name, parameters.region_bytes, tensor.nbytes });
        }
        const regions = try shared_memory.allowed(self.regions, self.problem);
        const region = try regions.acquire(parameters.region().?, self.problem);
        defer regions.release(region);
        try region.read(parameters.region_offset, self.placeOf(tensor), self.problem);
        try self.checkBools(tensor);
    }

    /// Reads what follows the JSON, to the body's end; `bytes` is how much that is, where it is known.
    pub fn readBinary(self: *InputData, body: *Io.Reader, bytes: ?u64) error{ Problem, ReadFailed }!void {
        var expected: u64 = 0;
        for (self.binary[0..self.binary_len]) |tensor| expected += tensor.nbytes;
        if (bytes) |known| if (known != expected) {
            return self.problem.because(.bad_request, "{d} bytes follow the JSON, expected {d}", .{ known, expected });
        };
        for (self.binary[0..self.binary_len]) |tensor| {
            body.readSliceAll(self.placeOf(tensor)) catch |err| return switch (err) {
                error.ReadFailed => error.ReadFailed,
                error.EndOfStream => self.problem.because(.bad_request, "fewer bytes follow the JSON than the expected {d}", .{expected}),
            };
            try self.checkBools(tensor);
        }
        _ = body.peekByte() catch |err| return switch (err) {
            error.ReadFailed => error.ReadFailed,
            error.EndOfStream => {},
        };
        return self.problem.because(.bad_request, "more bytes follow the JSON than the expected {d}", .{expected});
    }

    /// What a kernel does with a bool that is neither is its own affair: it gets none.
    fn checkBools(self: *const InputData, tensor: *const Tensor) error{Problem}!void {
        if (tensor.dtype != .bool) return;
        for (self.placeOf(tensor), 0..) |byte, index| {
            if (byte > 1) return self.problem.because(.bad_request, "input \"{s}\": element {d} is no BOOL", .{ tensor.name, index });
        }
    }
};
