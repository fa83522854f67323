//! What a client is told when its request cannot be answered: a status and one line of words.

const std = @import("std");
const http = @import("http.zig");
const Refusal = @import("refusal.zig").Refusal;

pub const Problem = struct {
    status: http.Status = .internal_server_error,
    words: Refusal = .{},
    /// When it is worth asking again, or 0 where nobody knows.
    retry_after_s: u32 = 0,

    /// `return problem.because(.bad_request, "input {s} ...", .{name})`
    pub fn because(self: *Problem, status: http.Status, comptime format: []const u8, args: anytype) error{Problem} {
        self.status = status;
        self.words.because(.usage, format, args) catch {};
        return error.Problem;
    }

    pub fn reason(self: *const Problem) []const u8 {
        return self.words.reason();
    }
};
