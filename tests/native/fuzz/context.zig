//! What an iteration of any target is given, and what a target is.

const std = @import("std");
const Io = std.Io;
const agent = @import("agent");

pub const Context = struct {
    io: Io,
    random: std.Random,
    /// Emptied before each iteration. A parser that wants more than this has no bound.
    arena: *std.heap.FixedBufferAllocator,
    seeds: []const []const u8,
    /// Those of "model_info", parsed.
    models: []const agent.model_info.ModelInfo,
    /// Names and files of shared memory that requests of "http" and "infer" may use.
    regions: *agent.shared_memory.Regions,
};

pub const Target = struct {
    name: []const u8,
    tokens: []const []const u8,
    /// Whether the input was taken. Whatever it does, it is to come back.
    run: *const fn (context: *Context, input: []const u8) bool,
    /// Puts right, after a change, what would have stopped the parser at its first check.
    repair: ?*const fn (context: *Context, buffer: []u8, len: usize) usize = null,
    /// Makes the input itself, where changing a seed's bytes is not enough.
    make: ?*const fn (context: *Context, buffer: []u8) usize = null,
};
