//! The worker: one compiled model as one static process.
//!
//!     worker serve WEIGHTS SHM [THREADS]    answer requests on stdin/stdout; tensors lie in shared memory
//!     worker describe                       print what the model takes and gives, as JSON
//!     worker clock                          answer with the time, as a request for it is answered
//!
//! It is linked with the model (kernels, plan) and runtime/edgepack.c. It makes plain system calls
//! and has no allocator: start-up is a handful of them, and its text is small.
//! The protocol stands in serve.zig, the layout of the shared memory in abi.zig.

const std = @import("std");
const describe = @import("describe.zig");
const serve = @import("serve.zig");
const terminal = @import("terminal.zig");
const threads = @import("threads.zig");

pub const panic = terminal.panic;

// No signal stack and no printer of stack traces: the agent reports how a worker died.
pub const std_options: std.Options = .{ .enable_segfault_handler = false, .signal_stack_size = null };

const usage = "usage: worker serve WEIGHTS SHM [THREADS] | worker describe | worker clock";

/// Called by libc's start code; a `main` of Zig's own would bring std.Io's start-up with it.
pub export fn main(argc: c_int, argv: [*]const [*:0]const u8) c_int {
    const arguments = argv[0..@intCast(argc)];
    if (arguments.len == 2 and is(arguments[1], "describe")) return describe.run();
    if (arguments.len == 2 and is(arguments[1], "clock")) return serve.tellTime();
    if (arguments.len == 4 and is(arguments[1], "serve")) return serve.run(arguments[2], arguments[3], threads.byDefault());
    if (arguments.len == 5 and is(arguments[1], "serve")) {
        if (threads.parse(arguments[4])) |count| return serve.run(arguments[2], arguments[3], count);
    }
    terminal.complain(&.{usage});
    return 2;
}

fn is(argument: [*:0]const u8, word: []const u8) bool {
    return std.mem.eql(u8, std.mem.span(argument), word);
}
