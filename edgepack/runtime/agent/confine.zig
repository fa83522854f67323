//! What the agent takes from a worker before the worker's first instruction: whatever a package brings,
//! however it was built, runs within this. (worker/confine.zig takes more, later, from a worker that is ours.)
//!
//!     descriptors   those that the protocol needs, and an stderr that cannot fill a disk
//!     privileges    none gained by exec, no capabilities, even where the agent is root
//!     Landlock      its own executable, and no other file; no TCP, no process outside
//!     limits        address space, no core, no file written
//!     seccomp       calls that libc's start, threads and answering take; all others fail with EPERM
//!
//! It runs in the child between fork and exec: system calls only. An old kernel may lack Landlock or
//! filters; the rest holds there all the same.

const std = @import("std");
const sandbox = @import("sandbox");
const linux = std.os.linux;
const log = @import("log.zig");
const privileges = @import("privileges.zig");

/// Descriptors have numbers below this one.
const max_descriptors = 16;

const clone_thread = 0x10000;
/// CLONE_NEWNS and the other namespaces that clone() itself can make.
const clone_namespaces = 0x7e020000;

/// All of it, in this process and for good. `executable` is the descriptor with the highest number that
/// stays, and what may be executed; `memory_bytes` is all that it may map.
pub fn enter(executable: linux.fd_t, memory_bytes: u64) linux.E {
    // First: within the limits the stack cannot grow, and nothing that follows needs more of it.
    var filter = calls();
    quieten();
    // Elsewhere close-on-exec is on every descriptor of ours anyway; this is for those of an ancestor.
    _ = linux.close_range(executable + 1, std.math.maxInt(i32), .{ .UNSHARE = false, .CLOEXEC = true });
    sandbox.gainNothing();
    // Exec gives root's back, but no more than there were, since none are gained (capabilities(7)).
    privileges.keepNothing();
    const files = leaveFiles(executable);
    if (files != .SUCCESS) return files;
    limit(memory_bytes);
    const filtered = filter.install(.this_thread);
    return if (isMissing(filtered)) .SUCCESS else filtered;
}

/// A line for each of the two that this kernel lacks, for whoever reads the server's log.
pub fn tellWhatIsMissing() void {
    if (sandbox.landlock.version() == 0) log.line("this kernel has no Landlock: seccomp alone keeps workers from files", .{});
    if (!sandbox.hasFilters()) log.line("this kernel has no seccomp filters: system calls of workers are not restricted", .{});
}

/// How kernels, containers and emulators say that they do not have something.
fn isMissing(errno: linux.E) bool {
    return switch (errno) {
        .NOSYS, .INVAL, .PERM, .OPNOTSUPP => true,
        else => false,
    };
}

/// A file as stderr is the agent's log: a worker that writes there without end would fill the disk.
/// Pipes, sockets and terminals have no position.
fn quieten() void {
    const position = linux.syscall3(.lseek, 2, 0, linux.SEEK.CUR);
    if (linux.errno(position) == .SPIPE) return;
    const nowhere = linux.open("/dev/null", .{ .ACCMODE = .WRONLY, .CLOEXEC = true }, 0);
    if (linux.errno(nowhere) != .SUCCESS or linux.errno(linux.dup2(@intCast(nowhere), 2)) != .SUCCESS) _ = linux.close(2);
}

fn leaveFiles(executable: linux.fd_t) linux.E {
    const landlock = sandbox.landlock;
    const ruleset = landlock.Ruleset.init() orelse return .SUCCESS;
    defer ruleset.close();
    const permitted = ruleset.permit(executable, landlock.execute | landlock.read_file);
    if (permitted != .SUCCESS) return permitted;
    const entered = ruleset.enter();
    return if (isMissing(entered)) .SUCCESS else entered;
}

fn limit(memory_bytes: u64) void {
    const largest: u64 = std.math.maxInt(usize); // more than this a process cannot map anyway
    inline for (.{
        .{ linux.rlimit_resource.CORE, 0 },
        .{ linux.rlimit_resource.FSIZE, 0 },
        .{ linux.rlimit_resource.NOFILE, max_descriptors },
        .{ linux.rlimit_resource.AS, @min(memory_bytes, largest) },
    }) |it| {
        const both: linux.rlimit = .{ .cur = it[1], .max = it[1] };
        _ = linux.prlimit(0, it[0], &both, null);
    }
}

/// The most frequent first: the kernel goes through them in order, at every call.
fn calls() sandbox.Filter {
    const own: u32 = @intCast(linux.getpid());
    var filter: sandbox.Filter = .init(.{ .fail = .PERM });
    filter.allow(&.{ "futex", "futex_time64", "read", "write", "clock_gettime", "clock_gettime64", "sched_yield" });
    filter.allow(&.{ "pread64", "readv", "writev", "lseek", "llseek", "_llseek", "close", "close_range", "fstat", "fstat64" });
    filter.allow(&.{ "mmap", "mmap2", "munmap", "mprotect", "mremap", "madvise", "brk" });
    filter.allow(&.{ "exit", "exit_group", "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getuid32", "geteuid32", "getgid32", "getegid32" });
    filter.allow(&.{ "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall" });
    filter.allow(&.{ "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "pause", "poll", "ppoll", "ppoll_time64" });
    filter.allow(&.{ "set_tid_address", "set_robust_list", "set_tls", "getrandom", "uname", "getrlimit", "ugetrlimit" });
    // Of itself only; limits can only be lowered.
    filter.allowWhere(&.{ "kill", "tkill", "tgkill" }, 0, 0xffffffff, own);
    filter.allowWhere(&.{ "prlimit64", "sched_getaffinity", "sched_setaffinity" }, 0, 0xffffffff, 0);
    filter.allowWhere(&.{"arch_prctl"}, 0, 0xffffffff, 0x1002); // ARCH_SET_FS
    filter.allowWhere(&.{"clone"}, 0, clone_thread | clone_namespaces, clone_thread);
    filter.deny(&.{"clone3"}, .NOSYS); // its flags are in memory, where no filter looks; libc then takes clone
    // To confine itself further.
    filter.allow(&.{ "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self" });
    filter.allowWhere(&.{"seccomp"}, 1, ~@as(u32, linux.SECCOMP.FILTER_FLAG.TSYNC), 0);
    inline for (.{ .SET_NO_NEW_PRIVS, .SET_SECCOMP, .SET_NAME }) |option| {
        filter.allowWhere(&.{"prctl"}, 0, 0xffffffff, @intCast(@backingInt(@as(linux.PR, option))));
    }
    // The worker itself. Whatever it executes later gets no more than this, and no file by Landlock.
    filter.allowWhere(&.{"execveat"}, 4, 0xffffffff, linux.AT.EMPTY_PATH);
    return filter;
}

test "what a worker is left with fits the filter" {
    const filter = calls();
    try std.testing.expect(filter.len > 100 and filter.len < filter.instructions.len);
}
