//! The bodies of requests that are about the server itself, not about tensors. An empty one is as good
//! as {}.
//!
//!     index   {"ready": BOOL}                  only those models that are, or that are not
//!     load    {"parameters": {}}               a model is served as it was installed: nothing to choose
//!     unload  {"parameters": {"unload_dependents": BOOL}}    no model depends on another here
//!     register  {"key": K, "offset": N, "byte_size": N}      shared memory; the offset may be left out

const std = @import("std");
const Io = std.Io;
const json_fields = @import("json_fields.zig");
const Seen = json_fields.Seen;
const max_key_bytes = @import("shared_memory.zig").max_key_bytes;
const Problem = @import("problem.zig").Problem;
const Tokens = @import("json_tokens.zig").Tokens;

pub const Kind = enum { index, load, unload, register };

pub const ControlRequest = struct {
    ready_only: bool = false,
    key_buffer: [max_key_bytes]u8 = undefined,
    key: []const u8 = "",
    offset: u64 = 0,
    byte_size: u64 = 0,

    pub const Error = error{ Problem, ReadFailed };

    /// The result points into `self`.
    pub fn read(self: *ControlRequest, body: *Io.Reader, kind: Kind, problem: *Problem) Error!void {
        try self.readBody(body, kind, problem);
        if (kind != .register) return;
        if (self.key.len == 0) return problem.because(.bad_request, "register needs a key", .{});
        if (self.byte_size == 0) return problem.because(.bad_request, "register needs a byte_size", .{});
    }

    fn readBody(self: *ControlRequest, body: *Io.Reader, kind: Kind, problem: *Problem) Error!void {
        _ = body.peekByte() catch |err| return if (err == error.EndOfStream) {} else error.ReadFailed;
        var tokens: Tokens = undefined;
        tokens.init(body);
        self.readFields(&tokens, kind, problem) catch |err| return switch (err) {
            error.Problem => error.Problem,
            else => |e| json_fields.explain(e, problem),
        };
    }

    fn readFields(self: *ControlRequest, tokens: *Tokens, kind: Kind, problem: *Problem) json_fields.Error!void {
        var seen: Seen(enum { ready, parameters, key, offset, byte_size }) = .{};
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        try tokens.expect(.object_begin);
        while (try tokens.key(&key_buffer)) |key| {
            const field = try seen.field(key, problem) orelse {
                try tokens.skip();
                continue;
            };
            const belongs_to_kind = switch (field) {
                .ready => kind == .index,
                .parameters => kind == .load or kind == .unload,
                .key, .offset, .byte_size => kind == .register,
            };
            if (!belongs_to_kind) try tokens.skip() else switch (field) {
                .ready => self.ready_only = try json_fields.boolean(tokens, "ready", problem),
                .parameters => try readParameters(tokens, kind, problem),
                .key => self.key = try json_fields.string(tokens, "key", &self.key_buffer, problem),
                .offset => self.offset = try json_fields.size(tokens, "offset", problem),
                .byte_size => self.byte_size = try json_fields.size(tokens, "byte_size", problem),
            }
        }
        try tokens.expect(.end);
    }

    /// One that would change the model must not look as if it had.
    fn readParameters(tokens: *Tokens, kind: Kind, problem: *Problem) json_fields.Error!void {
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        try tokens.expect(.object_begin);
        while (try tokens.key(&key_buffer)) |key| {
            if (kind == .unload and std.mem.eql(u8, key, "unload_dependents")) {
                try tokens.skip();
                continue;
            }
            return problem.because(.bad_request, "{t} takes no parameter \"{s}\": a model is served as it was installed", .{ kind, key });
        }
    }
};

const testing = std.testing;

fn readText(request: *ControlRequest, kind: Kind, text: []const u8, problem: *Problem) ControlRequest.Error!void {
    var body: Io.Reader = .fixed(text);
    request.* = .{};
    try request.read(&body, kind, problem);
}

test "bodies of control requests are read, and what they cannot have is refused" {
    var problem: Problem = .{};
    var request: ControlRequest = .{};
    for ([_][]const u8{ "", "{}", "{\"ready\":false}", "{\"later\":[{}]}" }) |text| {
        try readText(&request, .index, text, &problem);
        try testing.expect(!request.ready_only);
    }
    try readText(&request, .index, "{\"ready\":true}", &problem);
    try testing.expect(request.ready_only);
    try readText(&request, .load, "{\"parameters\":{}}", &problem);
    try readText(&request, .unload, "{\"parameters\":{\"unload_dependents\":false}}", &problem);
    try readText(&request, .register, "{\"byte_size\":7,\"key\":\"/k\"}", &problem);
    try testing.expectEqualStrings("/k", request.key);
    try testing.expectEqual(.{ 0, 7 }, .{ request.offset, request.byte_size });
    for ([_]struct { Kind, []const u8, []const u8 }{
        .{ .index, "{\"ready\":1}", "ready is not true or false" },
        .{ .index, "{\"ready\":true,\"ready\":true}", "\"ready\" is there twice" },
        .{ .index, "[]", "the request is not well-formed JSON of the expected kind" },
        .{ .index, "{} {}", "the request is not well-formed JSON of the expected kind" },
        .{ .load, "{\"parameters\":{\"config\":\"{}\"}}", "load takes no parameter \"config\": a model is served as it was installed" },
        .{ .load, "{\"parameters\":{\"unload_dependents\":true}}", "load takes no parameter \"unload_dependents\": a model is served as it was installed" },
        .{ .register, "", "register needs a key" },
        .{ .register, "{\"key\":\"/k\"}", "register needs a byte_size" },
        .{ .register, "{\"key\":\"/k\",\"byte_size\":-1}", "byte_size is not a number of bytes" },
        .{ .register, "{\"key\":7,\"byte_size\":1}", "key is not a string" },
        .{ .unload, "{\"parameters\":[]}", "the request is not well-formed JSON of the expected kind" },
    }) |case| {
        try testing.expectError(error.Problem, readText(&request, case[0], case[1], &problem));
        try testing.expectEqualStrings(case[2], problem.reason());
    }
}
