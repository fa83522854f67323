//! The command line, parsed.

const std = @import("std");
const CaptureCommand = @import("capture_commands.zig").Command;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const naming = @import("naming.zig");
const Settings = @import("settings.zig").Settings;
const tcp_socket = @import("tcp_socket.zig");

pub const default_root = "/var/lib/edgepack";

pub const usage =
    \\usage: edgepack-agent [--root DIR] COMMAND
    \\  serve [--socket PATH] [--tcp PORT] [--detach] [--queue N] [--queue-ms N] [--run-ms N]
    \\        [--failures N] [--user NAME]
    \\                                     answer inference requests
    \\  install FILE                       verify a package, try it out, switch to it
    \\  pull DIR|URL [NAME...]             the same, from a directory, web root or bucket prefix
    \\  rollback [NAME]                    back to the version before
    \\  status                             what is installed, and whether it is served
    \\  capture set NAME RULES | off NAME | status [NAME]
    \\                                     keep inputs and outputs of chosen requests
    \\  blobs                              digests of the contents that need not be sent again
    \\  version
    \\Every command but serve prints one JSON object.
    \\
;

pub const Command = union(enum) {
    serve: Serve,
    install: []const u8,
    pull: struct { where: []const u8, names: []const []const u8 },
    rollback: ?[]const u8,
    status,
    blobs,
    capture: CaptureCommand,
    version,
};

pub const Serve = struct {
    socket: ?[]const u8 = null,
    tcp: ?tcp_socket.Address = null,
    detach: bool = false,
    settings: Settings = .{},
};

pub const Arguments = struct {
    root: []const u8 = default_root,
    command: Command,

    /// `words` are those after the program's name.
    pub fn parse(refusal: *Refusal, words: []const []const u8) error{Refused}!Arguments {
        var rest = words;
        var root: []const u8 = default_root;
        while (rest.len > 0 and std.mem.eql(u8, rest[0], "--root")) : (rest = rest[2..]) {
            if (rest.len < 2 or rest[1].len == 0) return refusal.because(.usage, "--root needs a directory", .{});
            root = rest[1];
        }
        if (rest.len == 0) return refusal.because(.usage, "no command; there are serve, install, pull, rollback, status, blobs, capture, version", .{});
        return .{ .root = root, .command = try parseCommand(refusal, rest[0], rest[1..]) };
    }
};

fn parseCommand(refusal: *Refusal, name: []const u8, words: []const []const u8) error{Refused}!Command {
    const command = std.meta.stringToEnum(std.meta.Tag(Command), name) orelse
        return refusal.because(.usage, "no command {s}; there are serve, install, pull, rollback, status, blobs, capture, version", .{name});
    const limits: [2]usize = switch (command) {
        .serve => .{ 0, 5 + 2 * Settings.count },
        .install => .{ 1, 1 },
        .pull => .{ 1, 257 },
        .rollback => .{ 0, 1 },
        .capture => .{ 1, 4 },
        .status, .blobs, .version => .{ 0, 0 },
    };
    if (words.len < limits[0]) return refusal.because(.usage, "{s} needs an argument", .{name});
    if (words.len > limits[1]) return refusal.because(.usage, "{s}: too many arguments", .{name});
    switch (command) {
        .serve => return parseServe(refusal, words),
        .install => return .{ .install = words[0] },
        .pull => {
            for (words[1..]) |model| try checkName(refusal, model);
            return .{ .pull = .{ .where = words[0], .names = words[1..] } };
        },
        .rollback => {
            if (words.len == 0) return .{ .rollback = null };
            try checkName(refusal, words[0]);
            return .{ .rollback = words[0] };
        },
        .capture => return .{ .capture = try .parse(refusal, words) },
        inline .status, .blobs, .version => |tag| return tag,
    }
}

fn parseServe(refusal: *Refusal, words: []const []const u8) error{Refused}!Command {
    var command: Command = .{ .serve = .{} };
    var rest = words;
    while (rest.len > 0) {
        if (std.mem.eql(u8, rest[0], "--detach")) {
            command.serve.detach = true;
            rest = rest[1..];
        } else if (std.mem.eql(u8, rest[0], "--socket") and rest.len > 1) {
            command.serve.socket = rest[1];
            rest = rest[2..];
        } else if (std.mem.eql(u8, rest[0], "--tcp") and rest.len > 1) {
            command.serve.tcp = try .parse(refusal, rest[1]);
            rest = rest[2..];
        } else if (rest.len > 1 and try command.serve.settings.take(refusal, rest[0], rest[1])) {
            rest = rest[2..];
        } else return refusal.because(.usage, "serve takes --socket PATH, --tcp PORT, --detach, " ++ Settings.options ++ ", not {s}", .{rest[0]});
    }
    return command;
}

fn checkName(refusal: *Refusal, name: []const u8) error{Refused}!void {
    if (!naming.isName(name)) return refusal.because(.usage, "{s} is no name of a model", .{name});
}

const testing = std.testing;

test "commands are taken with their own arguments only" {
    var refusal: Refusal = .{};
    const root = try Arguments.parse(&refusal, &.{ "--root", "/r", "install", "a.epk" });
    try testing.expectEqualStrings("/r", root.root);
    try testing.expectEqualStrings("a.epk", root.command.install);
    const serve = try Arguments.parse(&refusal, &.{ "serve", "--detach", "--socket", "/s", "--tcp", "8000" });
    try testing.expect(serve.command.serve.detach);
    try testing.expectEqual(8000, serve.command.serve.tcp.?.port);
    try testing.expectEqualStrings("/s", serve.command.serve.socket.?);
    const all = [_][]const u8{ "serve", "--detach", "--socket", "/s", "--tcp", "8000", "--queue", "1", "--queue-ms", "2", "--run-ms", "3", "--failures", "4", "--user", "edge" };
    const settings = (try Arguments.parse(&refusal, &all)).command.serve.settings;
    try testing.expectEqual(1 + 2 + 3 + 4, settings.queue.value + settings.queue_ms.value + settings.run_ms.value + settings.failures.value);
    try testing.expectEqualStrings("edge", settings.user.value().?);
    try testing.expectEqual(2, (try Arguments.parse(&refusal, &.{ "pull", "/d", "a", "b" })).command.pull.names.len);
    try testing.expectEqual(null, (try Arguments.parse(&refusal, &.{"rollback"})).command.rollback);
    for ([_][]const []const u8{
        &.{},                           &.{"--root"},         &.{ "--root", "/r" },       &.{"fly"},                           &.{"install"},
        &.{ "install", "a", "b" },      &.{"pull"},           &.{ "pull", "/d", "../x" }, &.{ "rollback", "A" },               &.{ "status", "x" },
        &.{ "serve", "--socket" },      &.{ "serve", "--x" }, &.{ "serve", "--tcp" },     &.{ "serve", "--tcp", "0.0.0.0:1" }, &.{ "serve", "--queue" },
        &.{ "serve", "--queue", "-1" },
    }) |bad| {
        try testing.expectError(error.Refused, Arguments.parse(&refusal, bad));
        try testing.expectEqual(.usage, refusal.check);
    }
}
