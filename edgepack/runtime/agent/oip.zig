//! The answers of the Open Inference Protocol, version 2, in JSON; infer_request.zig reads its requests.
//! https://github.com/kserve/open-inference-protocol

const std = @import("std");
const Io = std.Io;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const tensor_json = @import("tensor_json.zig");
const Shape = tensor_json.Shape;

pub const max_id_bytes = 256;

/// What one infer request asks for, beside its tensors.
pub const Infer = struct {
    id_buffer: [max_id_bytes]u8 = undefined,
    id: ?[]const u8 = null,
    /// Indices of the outputs that are asked for, in the order asked; empty where it was not said.
    outputs: [model_info.max_tensors]u8 = undefined,
    outputs_len: usize = 0,

    /// Writes the answer; outputs are taken from `staging`.
    pub fn writeAnswer(self: *const Infer, writer: *Io.Writer, info: *const ModelInfo, staging: []const u8) Io.Writer.Error!void {
        try writer.print("{{\"model_name\":\"{s}\",\"model_version\":\"{s}\"", .{ info.name, info.version });
        if (self.id) |id| {
            try writer.writeAll(",\"id\":");
            try std.json.Stringify.encodeJsonString(id, .{}, writer);
        }
        try writer.writeAll(",\"outputs\":[");
        if (self.outputs_len == 0) {
            for (info.outputs, 0..) |*output, index| try writeOutput(writer, output, staging, index == 0);
        } else for (self.outputs[0..self.outputs_len], 0..) |wanted, index| {
            try writeOutput(writer, &info.outputs[wanted], staging, index == 0);
        }
        try writer.writeAll("]}");
    }
};

fn writeOutput(writer: *Io.Writer, output: *const Tensor, staging: []const u8, first: bool) Io.Writer.Error!void {
    if (!first) try writer.writeByte(',');
    try writer.writeByte('{');
    try writeTensorFields(writer, output);
    try writer.writeAll(",\"data\":");
    try tensor_json.write(writer, output.dtype, staging[output.offset..][0..output.nbytes]);
    try writer.writeByte('}');
}

fn writeTensorFields(writer: *Io.Writer, tensor: *const Tensor) Io.Writer.Error!void {
    try writer.writeAll("\"name\":");
    try std.json.Stringify.encodeJsonString(tensor.name, .{}, writer);
    try writer.print(",\"datatype\":\"{s}\",\"shape\":{f}", .{ tensor_json.datatype(tensor.dtype), Shape{ .extents = tensor.shape } });
}

pub fn writeServerMetadata(writer: *Io.Writer, version: []const u8) Io.Writer.Error!void {
    try writer.print("{{\"name\":\"edgepack\",\"version\":\"{s}\",\"extensions\":[\"model_repository\"]}}", .{version});
}

pub fn writeModelMetadata(writer: *Io.Writer, info: *const ModelInfo) Io.Writer.Error!void {
    try writer.print("{{\"name\":\"{s}\",\"versions\":[\"{s}\"],\"platform\":\"edgepack\",\"inputs\":", .{ info.name, info.version });
    try writeTensors(writer, info.inputs);
    try writer.writeAll(",\"outputs\":");
    try writeTensors(writer, info.outputs);
    try writer.writeByte('}');
}

fn writeTensors(writer: *Io.Writer, tensors: []const Tensor) Io.Writer.Error!void {
    for (tensors, 0..) |*tensor, index| {
        try writer.writeAll(if (index == 0) "[{" else ",{");
        try writeTensorFields(writer, tensor);
        try writer.writeByte('}');
    }
    try writer.writeByte(']');
}

pub fn writeError(writer: *Io.Writer, reason: []const u8) Io.Writer.Error!void {
    try writer.writeAll("{\"error\":");
    try std.json.Stringify.encodeJsonString(reason, .{}, writer);
    try writer.writeByte('}');
}
