//! The paths of the API.

const std = @import("std");
const naming = @import("naming.zig");

pub const Route = union(enum) {
    server,
    live,
    ready,
    model: Model,
    model_ready: Model,
    infer: Model,
    statistics: Model,
    index,
    load: []const u8,
    unload: []const u8,
    /// Of shared memory: one region, or all where no name is given.
    region_status: ?[]const u8,
    register: []const u8,
    unregister: ?[]const u8,
    captures: Captures,

    pub const Model = struct { name: []const u8, version: ?[]const u8 };

    /// Of the model of this name, in whatever version.
    pub const Captures = struct {
        name: []const u8,
        what: union(enum) { status, number: u64, reload, sync },
    };

    /// Whether it takes POST; all others take GET.
    pub fn changes(route: Route) bool {
        return switch (route) {
            .infer, .index, .load, .unload, .register, .unregister => true,
            .captures => |it| it.what == .reload or it.what == .sync,
            .server, .live, .ready, .model, .model_ready, .statistics, .region_status => false,
        };
    }

    pub fn parse(path: []const u8) ?Route {
        var buffer: [8][]const u8 = undefined;
        const words = split(path, &buffer) orelse return null;
        if (words.len == 0 or !is(words[0], "v2")) return null;
        if (words.len == 1) return .server;
        if (words.len == 3 and is(words[1], "health")) {
            if (is(words[2], "live")) return .live;
            return if (is(words[2], "ready")) .ready else null;
        }
        if (is(words[1], "repository")) {
            if (words.len == 3 and is(words[2], "index")) return .index;
            if (words.len != 5 or !is(words[2], "models") or !naming.isName(words[3])) return null;
            if (is(words[4], "load")) return .{ .load = words[3] };
            return if (is(words[4], "unload")) .{ .unload = words[3] } else null;
        }
        if (is(words[1], "systemsharedmemory")) return parseRegion(words[2..]);
        return if (is(words[1], "models")) parseModel(words[2..]) else null;
    }

    /// [region/NAME/]status, register or unregister
    fn parseRegion(words: []const []const u8) ?Route {
        const named = words.len == 3 and is(words[0], "region");
        if (!named and words.len != 1) return null;
        const name: ?[]const u8 = if (named) words[1] else null;
        const verb = words[words.len - 1];
        if (is(verb, "status")) return .{ .region_status = name };
        if (is(verb, "unregister")) return .{ .unregister = name };
        return if (named and is(verb, "register")) .{ .register = words[1] } else null;
    }

    /// NAME[/versions/VERSION][/ready|/infer|/statistics]
    fn parseModel(words: []const []const u8) ?Route {
        if (words.len == 0 or !naming.isName(words[0])) return null;
        const versioned = words.len > 1 and is(words[1], "versions");
        if (versioned and words.len < 3) return null; // any text: that no such version is served is the better answer
        const model: Model = .{ .name = words[0], .version = if (versioned) words[2] else null };
        const rest = words[if (versioned) 3 else 1..];
        if (rest.len == 0) return .{ .model = model };
        if (!versioned and is(rest[0], "captures")) return parseCaptures(model.name, rest[1..]);
        if (rest.len > 1) return null;
        if (is(rest[0], "ready")) return .{ .model_ready = model };
        if (is(rest[0], "statistics")) return .{ .statistics = model };
        return if (is(rest[0], "infer")) .{ .infer = model } else null;
    }

    /// [NUMBER|reload|sync]
    fn parseCaptures(name: []const u8, words: []const []const u8) ?Route {
        if (words.len == 0) return .{ .captures = .{ .name = name, .what = .status } };
        if (words.len > 1) return null;
        if (is(words[0], "reload")) return .{ .captures = .{ .name = name, .what = .reload } };
        if (is(words[0], "sync")) return .{ .captures = .{ .name = name, .what = .sync } };
        const number = std.fmt.parseInt(u63, words[0], 10) catch return null;
        return .{ .captures = .{ .name = name, .what = .{ .number = number } } };
    }

    /// Null where there are more words than any path has.
    fn split(path: []const u8, buffer: *[8][]const u8) ?[]const []const u8 {
        var words = std.mem.splitScalar(u8, std.mem.trim(u8, path, "/"), '/');
        var len: usize = 0;
        while (words.next()) |word| : (len += 1) {
            if (len == buffer.len) return null;
            buffer[len] = word;
        }
        return buffer[0..len];
    }

    fn is(word: []const u8, expected: []const u8) bool {
        return std.mem.eql(u8, word, expected);
    }
};

test "paths lead where the protocol says, and all others nowhere" {
    const testing = std.testing;
    try testing.expectEqual(.server, Route.parse("/v2").?);
    try testing.expectEqual(.server, Route.parse("/v2/").?);
    try testing.expectEqual(.live, Route.parse("/v2/health/live").?);
    try testing.expectEqual(.index, Route.parse("/v2/repository/index").?);
    try testing.expectEqualStrings("m", Route.parse("/v2/repository/models/m/load").?.load);
    const versioned = Route.parse("/v2/models/m.x-1/versions/1.2.3/infer").?.infer;
    try testing.expectEqualStrings("m.x-1", versioned.name);
    try testing.expectEqualStrings("1.2.3", versioned.version.?);
    try testing.expectEqual(null, Route.parse("/v2/models/m/ready").?.model_ready.version);
    try testing.expectEqualStrings("2", Route.parse("/v2/models/m/versions/2/statistics").?.statistics.version.?);
    try testing.expectEqualStrings("m", Route.parse("/v2/repository/models/m/unload").?.unload);
    try testing.expectEqualStrings("1", Route.parse("/v2/models/m/versions/1").?.model.version.?);
    try testing.expectEqual(null, Route.parse("/v2/systemsharedmemory/status").?.region_status);
    try testing.expectEqual(null, Route.parse("/v2/systemsharedmemory/unregister").?.unregister);
    try testing.expectEqualStrings("r", Route.parse("/v2/systemsharedmemory/region/r/status").?.region_status.?);
    try testing.expectEqualStrings("R", Route.parse("/v2/systemsharedmemory/region/R/register").?.register);
    try testing.expectEqualStrings("r", Route.parse("/v2/systemsharedmemory/region/r/unregister").?.unregister.?);
    try testing.expectEqualStrings("versions", Route.parse("/v2/models/versions").?.model.name);
    try testing.expectEqual(.status, Route.parse("/v2/models/m/captures").?.captures.what);
    try testing.expectEqual(7, Route.parse("/v2/models/m/captures/7").?.captures.what.number);
    try testing.expectEqual(.sync, Route.parse("/v2/models/m/captures/sync").?.captures.what);
    try testing.expect(Route.parse("/v2/models/m/captures/reload").?.changes() and !Route.parse("/v2/models/m/captures").?.changes());
    for ([_][]const u8{
        "/v2/models/m/captures/x",        "/v2/models/m/captures/-1",        "/v2/models/m/captures/1/2",       "/v2/models/m/versions/1/captures",
        "/",                              "/v3",                             "/v2/health",                      "/v2/health/ready/x",
        "/v2/models",                     "/v2/models/../etc",               "/v2/models/M",                    "/v2/models/m/versions",
        "/v2/models/m/versions/1/config", "/v2/models/m/x",                  "/v2/models/m/infer/x",            "/v2/repository/models/m/unload/x",
        "/v2/systemsharedmemory",         "/v2/systemsharedmemory/register", "/v2/systemsharedmemory/region/r", "/v2/cudasharedmemory/status",
        "/v2/repository",                 "/v2/repository/models/%2e/load",  "/v2/a/b/c/d/e/f/g/h/i",           "/v2/models//infer",
    }) |path| try testing.expectEqual(null, Route.parse(path));
}
