//! What the worker takes from itself before it runs anything of the model's: in two steps, since Landlock
//! holds the threads that come after it, and a filter without clone can only come after the threads.
//!
//! It holds what a kernel of the model does. An executable that was made to do harm would not call it:
//! the agent confines every worker before it begins, more widely (agent/confine.zig).

const std = @import("std");
const sandbox = @import("sandbox");
const linux = std.os.linux;
const terminal = @import("terminal.zig");

const prot_exec = 4;

/// What this process is held by.
pub const Held = struct { landlock: bool = false, seccomp: bool = false };

/// No file, no TCP, no process outside. For every thread that is started afterwards.
pub fn leaveFiles(held: *Held) void {
    sandbox.gainNothing();
    const ruleset = sandbox.landlock.Ruleset.init() orelse return;
    defer ruleset.close();
    held.landlock = ruleset.enter() == .SUCCESS;
}

/// No system call but those that a kernel, a pool of threads and the answers to requests take.
pub fn leaveCalls(held: *Held) void {
    const own: u32 = @intCast(linux.getpid());
    var filter: sandbox.Filter = .init(.end);
    filter.allow(&.{ "read", "write", "futex", "futex_time64", "sched_yield", "clock_gettime", "clock_gettime64" });
    filter.allow(&.{ "pread64", "munmap", "madvise", "exit", "exit_group", "getpid", "gettid", "set_robust_list" });
    filter.allow(&.{ "rt_sigprocmask", "rt_sigreturn", "sigreturn", "restart_syscall" });
    filter.allow(&.{ "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "pause" });
    filter.allowWhere(&.{ "mmap", "mmap2" }, 2, prot_exec, 0);
    // How a process ends itself: abort().
    filter.allowWhere(&.{ "kill", "tkill", "tgkill" }, 0, 0xffffffff, own);
    held.seccomp = filter.install(.every_thread) == .SUCCESS;
}

/// Old kernels and emulators have less; whoever reads stderr shall know.
pub fn tellWhatIsMissing(held: Held) void {
    if (!held.landlock) terminal.complain(&.{"this kernel has no Landlock"});
    if (!held.seccomp) terminal.complain(&.{"this kernel has no seccomp filters: system calls are not restricted"});
}
