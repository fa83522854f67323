//! Landlock (landlock(7)): the process gives up, for good and for its children, access to every file that
//! no rule names, to TCP, and to processes outside of it. Linux 5.13 has the first version; each later
//! one can take more away, and all that the running one can is taken.

const std = @import("std");
const linux = std.os.linux;

/// Bits of a rule on a file.
pub const execute: u64 = 1 << 0;
pub const read_file: u64 = 1 << 2;

/// `struct landlock_ruleset_attr`; older kernels take it where what they do not know is zero.
const Attributes = extern struct { files: u64, network: u64, scoped: u64 };
/// `struct landlock_path_beneath_attr` is packed: 12 bytes.
const PathBeneath = extern struct { access: u64 align(4), parent: i32 };

const create_version = 1 << 0; // LANDLOCK_CREATE_RULESET_VERSION
const rule_path_beneath = 1;

/// The version that this kernel has; 0: none, or it is switched off.
pub fn version() u32 {
    const result = linux.syscall3(.landlock_create_ruleset, 0, 0, create_version);
    return if (linux.errno(result) == .SUCCESS) @intCast(result) else 0;
}

fn everything(of: u32) Attributes {
    return .{
        .files = switch (of) {
            0, 1 => (1 << 13) - 1,
            2 => (1 << 14) - 1, // moving files between directories
            3, 4 => (1 << 15) - 1, // truncating
            else => (1 << 16) - 1, // ioctl on devices
        },
        .network = if (of >= 4) 0b11 else 0, // bind and connect by TCP
        .scoped = if (of >= 6) 0b11 else 0, // abstract Unix sockets and signals
    };
}

pub const Ruleset = struct {
    fd: linux.fd_t,

    /// One that permits nothing; null where there is no Landlock.
    pub fn init() ?Ruleset {
        const found = version();
        if (found == 0) return null;
        const attributes = everything(found);
        const result = linux.syscall3(.landlock_create_ruleset, @intFromPtr(&attributes), @sizeOf(Attributes), 0);
        return if (linux.errno(result) == .SUCCESS) .{ .fd = @intCast(result) } else null; // closed by exec
    }

    /// Lets an open file be used so.
    pub fn permit(self: Ruleset, file: linux.fd_t, access: u64) linux.E {
        const rule: PathBeneath = .{ .access = access, .parent = file };
        return linux.errno(linux.syscall4(.landlock_add_rule, @as(u32, @bitCast(self.fd)), rule_path_beneath, @intFromPtr(&rule), 0));
    }

    /// In force for the calling thread and all that it starts.
    pub fn enter(self: Ruleset) linux.E {
        return linux.errno(linux.syscall2(.landlock_restrict_self, @as(u32, @bitCast(self.fd)), 0));
    }

    pub fn close(self: Ruleset) void {
        _ = linux.close(self.fd);
    }
};

test "structures have the kernel's sizes" {
    try std.testing.expectEqual(24, @sizeOf(Attributes));
    try std.testing.expectEqual(12, @sizeOf(PathBeneath));
    try std.testing.expectEqual(8, @offsetOf(PathBeneath, "parent"));
}
