//! The worker's way to say something: whole lines on stderr, bytes on stdout, and a panic handler
//! that says what went wrong without the stack trace printer (which is larger than the worker).

const std = @import("std");
const linux = std.os.linux;

/// One line on stderr, made of `parts`.
pub fn complain(parts: []const []const u8) void {
    _ = writeAll(2, "worker: ");
    for (parts) |part| _ = writeAll(2, part);
    _ = writeAll(2, "\n");
}

/// False where not all could be written.
pub fn writeAll(fd: i32, bytes: []const u8) bool {
    var rest = bytes;
    while (rest.len > 0) {
        const result = linux.write(fd, rest.ptr, rest.len);
        switch (linux.errno(result)) {
            .SUCCESS => rest = rest[result..],
            .INTR => {},
            else => return false,
        }
    }
    return true;
}

/// Every safety panic of the language ends here; 'aborted' is what the agent then reports.
pub const panic = std.debug.FullPanic(die);

fn die(message: []const u8, _: ?usize) noreturn {
    @branchHint(.cold);
    complain(&.{ "panic: ", message });
    linux.exit_group(134);
}
