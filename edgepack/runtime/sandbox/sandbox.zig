//! What it needs to take rights away from a process: system call filters and Landlock.
//! What is taken away, and when, is in agent/confine.zig and worker/confine.zig.

const std = @import("std");
const linux = std.os.linux;

const seccomp = @import("seccomp.zig");
pub const Filter = seccomp.Filter;
pub const hasFilters = seccomp.available;
pub const landlock = @import("landlock.zig");

/// From here on no exec gives rights that this process does not have. Filters and Landlock demand it.
pub fn gainNothing() void {
    _ = linux.prctl(@backingInt(linux.PR.SET_NO_NEW_PRIVS), 1, 0, 0, 0);
}

test {
    _ = seccomp;
    _ = landlock;
}
