//! Targets with defects, by which the fuzzer's own test sees that it finds them.

const linux = @import("std").os.linux;
const Context = @import("context.zig").Context;
const Target = @import("context.zig").Target;

pub const targets = [_]Target{
    .{ .name = "planted-crash", .tokens = &.{}, .run = crash },
    .{ .name = "planted-fault", .tokens = &.{}, .run = fault },
    .{ .name = "planted-hang", .tokens = &.{}, .run = hang },
    .{ .name = "planted-file", .tokens = &.{}, .run = file },
};

/// Where two numbers are taken for smaller than they are.
fn crash(_: *Context, input: []const u8) bool {
    if (input.len < 4) return false;
    const sum: u8 = input[0] + input[1];
    return sum > 0;
}

fn fault(_: *Context, input: []const u8) bool {
    if (input.len > 0 and input[0] == '/') return false;
    const nowhere: *allowzero volatile u8 = @ptrFromInt(0);
    return nowhere.* > 0;
}

fn hang(_: *Context, input: []const u8) bool {
    var at: usize = 0;
    while (at < input.len) at += @intFromBool(input[at] != 0x7f);
    return true;
}

fn file(_: *Context, input: []const u8) bool {
    if (input.len > 0 and input[0] == '/') return false;
    const opened = linux.open("outside/new", .{ .ACCMODE = .WRONLY, .CREAT = true }, 0o644);
    _ = linux.close(@intCast(opened));
    return false;
}
