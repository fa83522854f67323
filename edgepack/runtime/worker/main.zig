//! The worker: one compiled model as one static process.
//!
//!     worker serve WEIGHTS SHM    answer requests on stdin/stdout; tensors lie in shared memory
//!     worker describe             print what the model takes and gives, as JSON
//!
//! It is linked with the model (kernels, plan) and runtime/edgepack.c. It makes plain system calls
//! and has no allocator: start-up is a handful of them, and its text is small.
//! The protocol stands in serve.zig, the layout of the shared memory in abi.zig.

const std = @import("std");
const describe = @import("describe.zig");
const serve = @import("serve.zig");
const terminal = @import("terminal.zig");

pub const panic = terminal.panic;

// No signal stack and no printer of stack traces: the agent reports how a worker died.
pub const std_options: std.Options = .{ .enable_segfault_handler = false, .signal_stack_size = null };

const usage = "usage: worker serve WEIGHTS SHM | worker describe";

/// Called by libc's start code; a `main` of Zig's own would bring std.Io's start-up with it.
pub export fn main(argc: c_int, argv: [*]const [*:0]const u8) c_int {
    const arguments = argv[0..@intCast(argc)];
    if (arguments.len == 2 and is(arguments[1], "describe")) return describe.run();
    if (arguments.len == 4 and is(arguments[1], "serve")) return serve.run(arguments[2], arguments[3]);
    terminal.complain(&.{usage});
    return 2;
}

fn is(argument: [*:0]const u8, word: []const u8) bool {
    return std.mem.eql(u8, std.mem.span(argument), word);
}
