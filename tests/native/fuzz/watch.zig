//! What happens where an iteration ends the process, or does not end itself: the input goes to a file,
//! and the command that brings it back to stderr.

const std = @import("std");
const linux = std.os.linux;

pub const Watched = struct {
    target: []const u8 = "",
    seed: u64 = 0,
    iteration: u64 = 0,
    input: []const u8 = "",
    /// Where the input is saved.
    directory: []const u8 = "",
    hang_seconds: u32 = 5,
};

/// Of the iteration that runs.
pub var watched: Watched = .{};

/// As the ticks saw it last, and how many have passed since.
var seen: u64 = std.math.maxInt(u64);
var ticks: u32 = 0;

/// A fault may be the end of the stack.
var signal_stack: [64 << 10]u8 align(16) = undefined;

pub fn start() void {
    _ = linux.sigaltstack(&.{ .sp = &signal_stack, .flags = 0, .size = signal_stack.len }, null);
    inline for (.{ .SEGV, .BUS, .ILL, .FPE }) |signal| handle(signal, onFault);
    handle(.ALRM, onTick);
    // A timeval, which has the same layout in 64 bits: {interval, value}, each {seconds, microseconds}.
    const second: linux.timespec = .{ .sec = 1, .nsec = 0 };
    _ = linux.setitimer(0, &.{ .it_interval = second, .it_value = second }, null);
}

fn handle(signal: linux.SIG, handler: *const fn (linux.SIG) callconv(.c) void) void {
    const action: linux.Sigaction = .{ .handler = .{ .handler = handler }, .mask = linux.sigemptyset(), .flags = linux.SA.RESTART | linux.SA.ONSTACK };
    _ = linux.sigaction(signal, &action, null);
}

fn onFault(_: linux.SIG) callconv(.c) void {
    die("a memory fault or an illegal instruction", null);
}

fn onTick(_: linux.SIG) callconv(.c) void {
    const now = watched.iteration;
    ticks = if (now == seen) ticks + 1 else 0;
    seen = now;
    if (ticks >= watched.hang_seconds) die("it hangs", null);
}

/// The fuzzer's panic, too: a failed safety check in the agent's sources comes here.
pub fn die(message: []const u8, _: ?usize) noreturn {
    @branchHint(.cold);
    var buffer: [1024]u8 = undefined;
    const it = watched;
    say(std.fmt.bufPrint(&buffer, "fuzz: {s}: {s}\n", .{ it.target, message }) catch "fuzz: died\n");
    if (std.fmt.bufPrintSentinel(&buffer, "{s}/crash-{s}-{d}-{d}", .{ it.directory, it.target, it.seed, it.iteration }, 0)) |path| {
        save(path, it.input);
        say("fuzz: the input is in ");
        say(path);
    } else |_| {}
    say(std.fmt.bufPrint(&buffer, "\nfuzz: again: make fuzz FUZZ='--target {s} --seed {d} --start {d} --iterations 1'\n", .{ it.target, it.seed, it.iteration }) catch "\n");
    linux.exit_group(70);
}

fn save(path: [:0]const u8, bytes: []const u8) void {
    const opened = linux.open(path, .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true }, 0o644);
    if (linux.errno(opened) != .SUCCESS) return;
    const fd: linux.fd_t = @intCast(opened);
    _ = linux.write(fd, bytes.ptr, bytes.len);
    _ = linux.close(fd);
}

fn say(text: []const u8) void {
    _ = linux.write(2, text.ptr, text.len);
}
