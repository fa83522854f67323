//! The answers of the Open Inference Protocol, version 2, in JSON; infer_request.zig reads its requests.
//! https://github.com/kserve/open-inference-protocol

const std = @import("std");
const Io = std.Io;
const Answer = @import("http_answer.zig").Answer;
const capture_model = @import("capture_model.zig");
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const Tensor = model_info.Tensor;
const Problem = @import("problem.zig").Problem;
const TensorParameters = @import("tensor_parameters.zig").TensorParameters;
const shared_memory = @import("shared_memory.zig");
const tensor_json = @import("tensor_json.zig");
const Shape = tensor_json.Shape;

pub const max_id_bytes = 256;

/// One output that is asked for.
pub const Wanted = struct {
    /// Index among the model's outputs.
    output: u8,
    /// Behind the JSON instead of in it; null where the request as a whole decides.
    binary: ?bool = null,
    /// Or in neither.
    shared: ?Shared = null,

    const Shared = struct { access: shared_memory.Access, region: *shared_memory.Region, offset: u64 };
};

/// What one infer request asks for, beside its tensors.
pub const Infer = struct {
    id_buffer: [max_id_bytes]u8 = undefined,
    id: ?[]const u8 = null,
    /// In the order asked; after settle() never empty.
    wanted: [model_info.max_tensors]Wanted = undefined,
    wanted_len: usize = 0,
    /// The form of those outputs that say none.
    binary_output: bool = false,
    capture: capture_model.Wish = .{},
    /// To be set before the answer is written.
    captured: capture_model.Told = .none,

    /// As one that was just made, but for what is undefined in it, and would be filled.
    pub fn reset(self: *Infer) void {
        self.id = null;
        self.wanted_len = 0;
        self.binary_output = false;
        self.capture.asked = false;
        self.capture.caller = null;
        self.captured = .none;
    }

    /// Adds the output of this index, which the request names.
    pub fn want(self: *Infer, info: *const ModelInfo, index: u8, parameters: *const TensorParameters, regions: ?shared_memory.Access, problem: *Problem) error{Problem}!void {
        const name = info.outputs[index].name;
        for (self.wanted[0..self.wanted_len]) |earlier| {
            if (earlier.output == index) return problem.because(.bad_request, "output \"{s}\" is asked for twice", .{name});
        }
        const shared = if (parameters.region_len == null) null else try placeOf(&info.outputs[index], parameters, regions, problem);
        self.wanted[self.wanted_len] = .{ .output = index, .binary = parameters.binary, .shared = shared };
        self.wanted_len += 1;
    }

    fn placeOf(output: *const Tensor, parameters: *const TensorParameters, regions: ?shared_memory.Access, problem: *Problem) error{Problem}!Wanted.Shared {
        if (parameters.binary orelse false) return problem.because(.bad_request, "output \"{s}\" is asked for in two places", .{output.name});
        if (parameters.region_bytes < output.nbytes) {
            return problem.because(.bad_request, "output \"{s}\": shared_memory_byte_size is {d}, and {d} are needed", .{ output.name, parameters.region_bytes, output.nbytes });
        }
        const access = try shared_memory.allowed(regions, problem);
        const region = try access.acquire(parameters.region().?, problem);
        errdefer access.release(region);
        try region.checkRange(parameters.region_offset, parameters.region_bytes, problem);
        return .{ .access = access, .region = region, .offset = parameters.region_offset };
    }

    /// Gives back what it holds of shared memory.
    pub fn release(self: *Infer) void {
        for (self.wanted[0..self.wanted_len]) |wanted| if (wanted.shared) |it| it.access.release(it.region);
        self.wanted_len = 0;
    }

    /// The whole request has been read: none asked for means all.
    pub fn settle(self: *Infer, info: *const ModelInfo) void {
        if (self.wanted_len == 0) {
            for (self.wanted[0..info.outputs.len], 0..) |*wanted, index| wanted.* = .{ .output = @intCast(index) };
            self.wanted_len = info.outputs.len;
        }
        for (self.wanted[0..self.wanted_len]) |*wanted| {
            wanted.binary = wanted.shared == null and (wanted.binary orelse self.binary_output);
        }
    }

    /// Puts those outputs into shared memory that are to be there.
    pub fn writeShared(self: *const Infer, info: *const ModelInfo, staging: []const u8, problem: *Problem) error{Problem}!void {
        for (self.wanted[0..self.wanted_len]) |wanted| {
            const shared = wanted.shared orelse continue;
            try shared.region.write(shared.offset, bytesOf(&info.outputs[wanted.output], staging), problem);
        }
    }

    /// Writes the answer: JSON, then the tensors whose data is not in it.
    pub fn writeAnswer(self: *const Infer, writer: *Io.Writer, info: *const ModelInfo, staging: []const u8) Io.Writer.Error!void {
        try self.writeJson(writer, info, staging);
        for (self.wanted[0..self.wanted_len]) |wanted| {
            if (wanted.binary.?) try writer.writeAll(bytesOf(&info.outputs[wanted.output], staging));
        }
    }

    /// How the answer divides; null where all of it is JSON, whose length is then not known before.
    pub fn parts(self: *const Infer, info: *const ModelInfo, staging: []const u8) ?Answer.Parts {
        var tensor_bytes: u64 = 0;
        for (self.wanted[0..self.wanted_len]) |wanted| {
            if (wanted.binary.?) tensor_bytes += info.outputs[wanted.output].nbytes;
        }
        if (tensor_bytes == 0) return null;
        var buffer: [512]u8 = undefined;
        var counter: Io.Writer.Discarding = .init(&buffer);
        self.writeJson(&counter.writer, info, staging) catch unreachable; // it only counts
        return .{ .json_bytes = counter.fullCount(), .tensor_bytes = tensor_bytes };
    }

    fn writeJson(self: *const Infer, writer: *Io.Writer, info: *const ModelInfo, staging: []const u8) Io.Writer.Error!void {
        try writer.print("{{\"model_name\":\"{s}\",\"model_version\":\"{s}\"", .{ info.name, info.version });
        if (self.id) |id| {
            try writer.writeAll(",\"id\":");
            try std.json.Stringify.encodeJsonString(id, .{}, writer);
        }
        switch (self.captured) {
            .none => {},
            .number => |number| try writer.print(",\"parameters\":{{\"capture\":{d}}}", .{number}),
            .refused => |reason| try writer.print(",\"parameters\":{{\"capture\":null,\"capture_reason\":\"{s}\"}}", .{reason}),
        }
        try writer.writeAll(",\"outputs\":[");
        for (self.wanted[0..self.wanted_len], 0..) |wanted, index| {
            if (index > 0) try writer.writeByte(',');
            try writeOutput(writer, &info.outputs[wanted.output], wanted, staging);
        }
        try writer.writeAll("]}");
    }
};

fn writeOutput(writer: *Io.Writer, output: *const Tensor, wanted: Wanted, staging: []const u8) Io.Writer.Error!void {
    try writer.writeByte('{');
    try writeTensorFields(writer, output);
    if (wanted.shared) |it| {
        try writer.print(",\"parameters\":{{\"shared_memory_region\":\"{s}\",\"shared_memory_byte_size\":{d},\"shared_memory_offset\":{d}}}", .{ it.region.name(), output.nbytes, it.offset });
    } else if (wanted.binary.?) {
        try writer.print(",\"parameters\":{{\"binary_data_size\":{d}}}", .{output.nbytes});
    } else {
        try writer.writeAll(",\"data\":");
        try tensor_json.write(writer, output.dtype, bytesOf(output, staging));
    }
    try writer.writeByte('}');
}

fn bytesOf(tensor: *const Tensor, staging: []const u8) []const u8 {
    return staging[tensor.offset..][0..tensor.nbytes];
}

fn writeTensorFields(writer: *Io.Writer, tensor: *const Tensor) Io.Writer.Error!void {
    try writer.writeAll("\"name\":");
    try std.json.Stringify.encodeJsonString(tensor.name, .{}, writer);
    try writer.print(",\"datatype\":\"{s}\",\"shape\":{f}", .{ tensor_json.datatype(tensor.dtype), Shape{ .extents = tensor.shape } });
}

pub fn writeServerMetadata(writer: *Io.Writer, version: []const u8, has_shared_memory: bool) Io.Writer.Error!void {
    try writer.print("{{\"name\":\"edgepack\",\"version\":\"{s}\",\"extensions\":[\"binary_tensor_data\",\"model_repository\"{s}]}}", .{
        version, if (has_shared_memory) ",\"system_shared_memory\"" else "",
    });
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
