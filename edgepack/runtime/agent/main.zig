//! edgepack-agent: verifies, installs, rolls back and serves compiled models on a device.
//!
//! One static executable, no configuration but ROOT/config.json, ROOT/serve.json and ROOT/trust/. What it
//! does in which order is in install.zig, where it keeps things in store.zig, what it trusts in verify.zig.

const std = @import("std");
const Io = std.Io;
const answer = @import("answer.zig");
const arguments = @import("arguments.zig");
const Arguments = arguments.Arguments;
const capture_commands = @import("capture_commands.zig");
const commands = @import("commands.zig");
const Refusal = @import("refusal.zig").Refusal;
const serve = @import("serve.zig");
const system_io = @import("system_io.zig");

pub const version = "0.1.0";

pub const panic = @import("panic.zig").panic;

pub const std_options: std.Options = .{
    .enable_segfault_handler = false, // it prints stack traces; see panic.zig
    .signal_stack_size = null,
};

/// The standard library's own messages would bring the whole of std.Io in; see system_io.zig.
pub const std_options_debug_threaded_io: ?*Io.Threaded = null;
pub const std_options_debug_io: Io = Io.failing;

/// The process's exit code; 1 where nobody takes the answer.
pub fn main(init: std.process.Init.Minimal) u8 {
    var arena_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    const arena = arena_state.allocator(); // for the life of the process
    const io = system_io.io();
    var refusal: Refusal = .{};
    var buffer: [4096]u8 = undefined;
    var stdout = Io.File.stdout().writerStreaming(io, &buffer);
    const out = &stdout.interface;
    const code: u8 = if (run(arena, io, &refusal, init, out)) |code| code else |err| code: {
        if (err == error.WriteFailed) return 1;
        if (err == error.OutOfMemory) refusal.because(.state, "out of memory", .{}) catch {};
        complain(io, &refusal);
        answer.failure(out, &refusal) catch return 1;
        break :code refusal.check.exitCode();
    };
    out.flush() catch return 1;
    return code;
}

fn run(arena: std.mem.Allocator, io: Io, refusal: *Refusal, init: std.process.Init.Minimal, out: *Io.Writer) commands.Error!u8 {
    var words: std.ArrayList([]const u8) = .empty;
    var given = init.args.iterate();
    _ = given.skip(); // the program's own name
    while (given.next()) |word| try words.append(arena, word);
    const parsed: Arguments = try .parse(refusal, words.items);
    const root = parsed.root;
    switch (parsed.command) {
        .serve => |options| return serve.run(io, refusal, root, options, init.environ),
        .install => |path| try commands.install(arena, io, refusal, root, path, out),
        .pull => |what| try commands.pull(arena, io, refusal, root, what.where, what.names, out),
        .rollback => |name| try commands.rollback(arena, io, refusal, root, name, out),
        .status => try commands.status(arena, io, refusal, root, version, out),
        .capture => |what| try capture_commands.run(arena, io, refusal, root, what, out),
        .events => try commands.listEvents(arena, io, refusal, root, out),
        .blobs => try commands.blobs(arena, io, refusal, root, out),
        .version => try out.print("{{\"agent\":\"{s}\",\"arch\":\"{t}\"}}\n", .{ version, @import("builtin").cpu.arch }),
    }
    return 0;
}

/// For people, on stderr; nothing depends on it.
fn complain(io: Io, refusal: *const Refusal) void {
    var buffer: [1024]u8 = undefined;
    var stderr = Io.File.stderr().writerStreaming(io, &buffer);
    stderr.interface.print("edgepack-agent: {t}: {s}\n", .{ refusal.check, refusal.reason() }) catch return;
    if (refusal.check == .usage) stderr.interface.writeAll(arguments.usage) catch return;
    stderr.interface.flush() catch {};
}

test {
    _ = @import("answer.zig");
    _ = @import("arguments.zig");
    _ = @import("capture_age.zig");
    _ = @import("capture_commands.zig");
    _ = @import("capture_folder.zig");
    _ = @import("capture_format.zig");
    _ = @import("capture_rules.zig");
    _ = @import("capture_segments.zig");
    _ = @import("capture_id.zig");
    _ = @import("capture_reader.zig");
    _ = @import("captures.zig");
    _ = @import("commands.zig");
    _ = @import("disk.zig");
    _ = @import("events.zig");
    _ = @import("golden.zig");
    _ = @import("install.zig");
    _ = @import("keys.zig");
    _ = @import("notify.zig");
    _ = @import("push_config.zig");
    _ = @import("push_form.zig");
    _ = @import("push_state.zig");
    _ = @import("replace.zig");
    _ = @import("serve.zig");
    _ = @import("tar.zig");
}
