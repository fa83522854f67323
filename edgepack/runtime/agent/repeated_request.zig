//! The JSON of an application's last request, and what it meant.
//!
//! An application asks the same again and again, and only the tensors are new. Where those are not in the
//! JSON, a request whose JSON is that of the one before, byte for byte, is not parsed again: that takes a
//! small core longer than a small model.
//!
//! Kept is only what was right when it was parsed, so that nothing in it is missing or there twice. What
//! may be otherwise by now, the regions of shared memory, is looked at each time.

const std = @import("std");
const model_info = @import("model_info.zig");
const Infer = @import("oip.zig").Infer;
const InputData = @import("input_data.zig").InputData;
const TensorParameters = @import("tensor_parameters.zig").TensorParameters;

/// Of a longer one, parsing is no longer what takes the time.
pub const max_text_bytes = 1 << 10;
/// Inputs, and outputs; a request for more is parsed each time.
const max_tensors = 8;

pub const RepeatedRequest = struct {
    state: enum { nothing, growing, kept } = .nothing,
    /// Of the model's version (ServedModel.serial).
    serial: u64 = 0,
    text_buffer: [max_text_bytes]u8 = undefined,
    text_len: usize = 0,
    /// Whether the body did not end with the JSON: by its header, data could follow.
    divided: bool = false,
    binary_output: bool = false,
    inputs: Tensors = .{},
    outputs: Tensors = .{},

    const Tensors = struct {
        items: [max_tensors]struct { index: u8, parameters: TensorParameters } = undefined,
        len: usize = 0,
    };

    /// What is kept of requests for another model, or another version of it, is forgotten.
    pub fn of(self: *RepeatedRequest, serial: u64) *RepeatedRequest {
        if (self.serial != serial) self.forget();
        self.serial = serial;
        return self;
    }

    pub fn is(self: *const RepeatedRequest, text: []const u8, divided: bool) bool {
        return self.state == .kept and self.divided == divided and std.mem.eql(u8, self.text_buffer[0..self.text_len], text);
    }

    /// Does what parsing it did.
    pub fn repeat(self: *const RepeatedRequest, infer: *Infer, data: *InputData) error{Problem}!void {
        infer.binary_output = self.binary_output;
        for (self.inputs.items[0..self.inputs.len]) |*it| try data.take(&data.info.inputs[it.index], &it.parameters);
        for (self.outputs.items[0..self.outputs.len]) |*it| try infer.want(data.info, it.index, &it.parameters, data.regions, data.problem);
    }

    /// A request is about to be parsed, and tells what it finds until keep() or forget().
    pub fn begin(self: *RepeatedRequest) void {
        self.state = .growing;
        self.inputs.len = 0;
        self.outputs.len = 0;
    }

    pub fn addInput(self: *RepeatedRequest, index: usize, parameters: *const TensorParameters) void {
        self.add(&self.inputs, index, parameters);
    }

    pub fn addOutput(self: *RepeatedRequest, index: usize, parameters: *const TensorParameters) void {
        self.add(&self.outputs, index, parameters);
    }

    fn add(self: *RepeatedRequest, tensors: *Tensors, index: usize, parameters: *const TensorParameters) void {
        if (self.state != .growing) return; // a request that is not to be kept leaves what is kept
        if (tensors.len == tensors.items.len) return self.forget();
        tensors.items[tensors.len] = .{ .index = @intCast(index), .parameters = parameters.* };
        tensors.len += 1;
    }

    /// It cannot be repeated, or is not to be.
    pub fn forget(self: *RepeatedRequest) void {
        self.state = .nothing;
    }

    /// All of it was right.
    pub fn keep(self: *RepeatedRequest, text: []const u8, divided: bool, infer: *const Infer) void {
        if (self.state != .growing) return;
        @memcpy(self.text_buffer[0..text.len], text);
        self.text_len = text.len;
        self.divided = divided;
        self.binary_output = infer.binary_output;
        self.state = .kept;
    }
};

test {
    _ = @import("repeated_request_test.zig");
}
