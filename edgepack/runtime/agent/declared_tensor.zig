//! What a request says of a tensor, to be compared with what the model takes.

const std = @import("std");
const json_fields = @import("json_fields.zig");
const model_info = @import("model_info.zig");
const Tensor = model_info.Tensor;
const Problem = @import("problem.zig").Problem;
const tensor_json = @import("tensor_json.zig");
const Shape = tensor_json.Shape;
const Tokens = @import("json_tokens.zig").Tokens;

pub const DeclaredTensor = struct {
    datatype_buffer: [16]u8 = undefined,
    datatype: ?[]const u8 = null,
    extents: [model_info.max_dimensions]i64 = undefined,
    rank: usize = 0,
    has_shape: bool = false,

    pub fn readDatatype(self: *DeclaredTensor, tokens: *Tokens, problem: *Problem) json_fields.Error!void {
        self.datatype = try json_fields.string(tokens, "datatype", &self.datatype_buffer, problem);
    }

    pub fn readShape(self: *DeclaredTensor, tokens: *Tokens, problem: *Problem) json_fields.Error!void {
        try tokens.expect(.array_begin);
        while (try tokens.peek() == .number) {
            const text = try tokens.number();
            if (self.rank == self.extents.len) return problem.because(.bad_request, "a shape of more than {d} dimensions", .{self.extents.len});
            self.extents[self.rank] = std.fmt.parseInt(i64, text, 10) catch
                return problem.because(.bad_request, "a shape that is not integers", .{});
            self.rank += 1;
        }
        try tokens.expect(.array_end);
        self.has_shape = true;
    }

    /// Compares as far as it is known by now.
    pub fn check(self: *const DeclaredTensor, tensor: *const Tensor, problem: *Problem) error{Problem}!void {
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
