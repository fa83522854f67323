//! The bodies of requests that are about the server itself, not about tensors. An empty one is as good
//! as {}.
//!
//!     index   {"ready": BOOL}                  only those models that are, or that are not
//!     load    {"parameters": {}}               a model is served as it was installed: nothing to choose
//!     unload  {"parameters": {"unload_dependents": BOOL}}    no model depends on another here

const std = @import("std");
const Io = std.Io;
const json_fields = @import("json_fields.zig");
const Seen = json_fields.Seen;
const Problem = @import("problem.zig").Problem;
const Tokens = @import("json_tokens.zig").Tokens;

pub const Kind = enum { index, load, unload };

pub const ControlRequest = struct {
    ready_only: bool = false,

    pub const Error = error{ Problem, ReadFailed };

    pub fn read(self: *ControlRequest, body: *Io.Reader, kind: Kind, problem: *Problem) Error!void {
        _ = body.peekByte() catch |err| return if (err == error.EndOfStream) {} else error.ReadFailed;
        var tokens: Tokens = undefined;
        tokens.init(body);
        self.readFields(&tokens, kind, problem) catch |err| return switch (err) {
            error.Problem => error.Problem,
            else => |e| json_fields.explain(e, problem),
        };
    }

    fn readFields(self: *ControlRequest, tokens: *Tokens, kind: Kind, problem: *Problem) json_fields.Error!void {
        var seen: Seen(enum { ready, parameters }) = .{};
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        try tokens.expect(.object_begin);
        while (try tokens.key(&key_buffer)) |key| {
            const field = try seen.field(key, problem);
            if (kind == .index and field == .ready) {
                self.ready_only = try json_fields.boolean(tokens, "ready", problem);
            } else if (kind != .index and field == .parameters) {
                try readParameters(tokens, kind, problem);
            } else try tokens.skip();
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

fn readText(kind: Kind, text: []const u8, problem: *Problem) ControlRequest.Error!ControlRequest {
    var body: Io.Reader = .fixed(text);
    var request: ControlRequest = .{};
    try request.read(&body, kind, problem);
    return request;
}

test "bodies of control requests are read, and what they cannot have is refused" {
    var problem: Problem = .{};
    for ([_][]const u8{ "", "{}", "{\"ready\":false}", "{\"later\":[{}]}" }) |text| {
        try testing.expect(!(try readText(.index, text, &problem)).ready_only);
    }
    try testing.expect((try readText(.index, "{\"ready\":true}", &problem)).ready_only);
    _ = try readText(.load, "{\"parameters\":{}}", &problem);
    _ = try readText(.unload, "{\"parameters\":{\"unload_dependents\":false}}", &problem);
    for ([_]struct { Kind, []const u8, []const u8 }{
        .{ .index, "{\"ready\":1}", "ready is not true or false" },
        .{ .index, "{\"ready\":true,\"ready\":true}", "\"ready\" is there twice" },
        .{ .index, "[]", "the request is not well-formed JSON of the expected kind" },
        .{ .index, "{} {}", "the request is not well-formed JSON of the expected kind" },
        .{ .load, "{\"parameters\":{\"config\":\"{}\"}}", "load takes no parameter \"config\": a model is served as it was installed" },
        .{ .load, "{\"parameters\":{\"unload_dependents\":true}}", "load takes no parameter \"unload_dependents\": a model is served as it was installed" },
        .{ .unload, "{\"parameters\":[]}", "the request is not well-formed JSON of the expected kind" },
    }) |case| {
        try testing.expectError(error.Problem, readText(case[0], case[1], &problem));
        try testing.expectEqualStrings(case[2], problem.reason());
    }
}
