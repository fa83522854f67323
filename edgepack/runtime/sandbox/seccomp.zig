//! A seccomp filter: a program of classic BPF (seccomp(2)) that says of each system call whether it may
//! be made. What no rule names ends the process, or fails, as `otherwise` says.
//!
//! Names that the architecture does not have are passed over: there is no `open` on aarch64, no `mmap`
//! but `mmap2` on arm.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const SECCOMP = linux.SECCOMP;

/// AUDIT_ARCH_* of linux/audit.h: the ELF machine, with bits for the width and for little-endian.
const own_architecture: u32 = switch (builtin.cpu.arch) {
    .x86_64 => 0xc000003e,
    .aarch64 => 0xc00000b7,
    .arm, .thumb => 0x40000028,
    .riscv64 => 0xc00000f3,
    else => @compileError("no system call filter is written for this architecture"),
};

/// `struct sock_filter` of linux/filter.h.
const Instruction = extern struct { code: u16, if_true: u8 = 0, if_false: u8 = 0, k: u32 };
/// `struct sock_fprog`.
const Program = extern struct { len: u16, instructions: [*]const Instruction };

const load = 0x20; // BPF_LD | BPF_W | BPF_ABS
const jump_if_equal = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const and_with = 0x54; // BPF_ALU | BPF_AND | BPF_K
const give = 0x06; // BPF_RET | BPF_K

/// The lower half of an argument: every architecture here is little-endian. What is tested are flags and
/// numbers of 32 bits; the kernel takes no more of them.
fn argumentOffset(index: u32) u32 {
    return @offsetOf(SECCOMP.data, "arg0") + 8 * index;
}

pub const Filter = struct {
    instructions: [max_instructions]Instruction = undefined,
    len: u16 = 0,
    /// What becomes of calls that no rule lets through.
    otherwise: u32,

    const max_instructions = 320;

    /// Nothing may be done yet. A call by the convention of another architecture ends the process.
    pub fn init(otherwise: union(enum) { end, fail: linux.E }) Filter {
        var filter: Filter = .{ .otherwise = switch (otherwise) {
            .end => SECCOMP.RET.KILL_PROCESS,
            .fail => |errno| SECCOMP.RET.ERRNO | @as(u32, @backingInt(errno)),
        } };
        filter.add(.{ .code = load, .k = @offsetOf(SECCOMP.data, "arch") });
        filter.add(.{ .code = jump_if_equal, .if_true = 1, .k = own_architecture });
        filter.add(.{ .code = give, .k = SECCOMP.RET.KILL_PROCESS });
        filter.add(.{ .code = load, .k = @offsetOf(SECCOMP.data, "nr") });
        return filter;
    }

    pub fn allow(self: *Filter, comptime names: []const []const u8) void {
        inline for (names) |name| self.rule(name, SECCOMP.RET.ALLOW);
    }

    /// Calls that libraries make by habit and do without: they fail, and the process lives.
    pub fn deny(self: *Filter, comptime names: []const []const u8, errno: linux.E) void {
        inline for (names) |name| self.rule(name, SECCOMP.RET.ERRNO | @as(u32, @backingInt(errno)));
    }

    /// Allowed where argument & mask == value; elsewhere later rules decide.
    pub fn allowWhere(self: *Filter, comptime names: []const []const u8, argument: u32, mask: u32, value: u32) void {
        inline for (names) |name| if (@hasField(linux.SYS, name)) {
            self.add(.{ .code = jump_if_equal, .if_false = 5, .k = number(name) });
            self.add(.{ .code = load, .k = argumentOffset(argument) });
            self.add(.{ .code = and_with, .k = mask });
            self.add(.{ .code = jump_if_equal, .if_false = 1, .k = value });
            self.add(.{ .code = give, .k = SECCOMP.RET.ALLOW });
            self.add(.{ .code = load, .k = @offsetOf(SECCOMP.data, "nr") });
        };
    }

    fn rule(self: *Filter, comptime name: []const u8, action: u32) void {
        if (!@hasField(linux.SYS, name)) return;
        self.add(.{ .code = jump_if_equal, .if_false = 1, .k = number(name) });
        self.add(.{ .code = give, .k = action });
    }

    fn number(comptime name: []const u8) u32 {
        return @intCast(@backingInt(@field(linux.SYS, name)));
    }

    fn add(self: *Filter, instruction: Instruction) void {
        self.instructions[self.len] = instruction;
        self.len += 1;
    }

    pub const Scope = enum { this_thread, every_thread };

    /// In force from here on, for good, and across exec. Does no more than two system calls, so that it
    /// can be done between fork and exec. .NOSYS or .INVAL: this kernel has no filters.
    pub fn install(self: *Filter, scope: Scope) linux.E {
        self.add(.{ .code = give, .k = self.otherwise });
        const program: Program = .{ .len = self.len, .instructions = &self.instructions };
        const flags: u32 = if (scope == .every_thread) SECCOMP.FILTER_FLAG.TSYNC else 0;
        const result = linux.seccomp(SECCOMP.SET_MODE_FILTER, flags, &program);
        const errno = linux.errno(result);
        if (errno == .SUCCESS) return if (result == 0) .SUCCESS else .BUSY; // a thread that would not follow
        if (errno != .NOSYS or scope == .every_thread) return errno;
        // Before Linux 3.17.
        return linux.errno(linux.prctl(@backingInt(linux.PR.SET_SECCOMP), SECCOMP.MODE.FILTER, @intFromPtr(&program), 0, 0));
    }
};

/// Whether this kernel has filters at all: where it has, it looks at the program, and there is none.
pub fn available() bool {
    return linux.errno(linux.prctl(@backingInt(linux.PR.SET_SECCOMP), SECCOMP.MODE.FILTER, 0, 0, 0)) == .FAULT;
}

/// What the kernel would do, for tests: the few instructions that are used here.
fn verdict(filter: *const Filter, data: *const SECCOMP.data) u32 {
    const bytes = std.mem.asBytes(data);
    var at: usize = 0;
    var a: u32 = 0;
    while (at < filter.len) {
        const it = filter.instructions[at];
        at += 1;
        switch (it.code) {
            load => a = std.mem.readInt(u32, bytes[it.k..][0..4], .little),
            and_with => a &= it.k,
            jump_if_equal => at += if (a == it.k) it.if_true else it.if_false,
            give => return it.k,
            else => unreachable,
        }
    }
    return filter.otherwise; // what install() ends every program with
}

test "a filter allows what it names and nothing else" {
    const testing = std.testing;
    var filter: Filter = .init(.end);
    filter.allow(&.{ "read", "no_such_call" });
    filter.deny(&.{"openat"}, .ACCES);
    filter.allowWhere(&.{"kill"}, 0, 0xffffffff, 42);
    filter.allow(&.{"write"});
    var data: SECCOMP.data = std.mem.zeroes(SECCOMP.data);
    data.arch = own_architecture;
    inline for (.{ "read", "write" }) |name| {
        data.nr = @intCast(@backingInt(@field(linux.SYS, name)));
        try testing.expectEqual(SECCOMP.RET.ALLOW, verdict(&filter, &data));
    }
    data.nr = @intCast(@backingInt(linux.SYS.openat));
    try testing.expectEqual(SECCOMP.RET.ERRNO | @as(u32, @backingInt(linux.E.ACCES)), verdict(&filter, &data));
    data.nr = @intCast(@backingInt(linux.SYS.kill));
    for ([_]u64{ 42, 0xffffffff_0000002a }) |own| {
        data.arg0 = own;
        try testing.expectEqual(SECCOMP.RET.ALLOW, verdict(&filter, &data));
    }
    for ([_]u64{ 0, 1, 41, std.math.maxInt(u64) }) |other| {
        data.arg0 = other;
        try testing.expectEqual(SECCOMP.RET.KILL_PROCESS, verdict(&filter, &data));
    }
    data.nr = @intCast(@backingInt(linux.SYS.socket));
    try testing.expectEqual(SECCOMP.RET.KILL_PROCESS, verdict(&filter, &data));
    data.nr = @intCast(@backingInt(linux.SYS.read));
    data.arch ^= 1;
    try testing.expectEqual(SECCOMP.RET.KILL_PROCESS, verdict(&filter, &data));
}

test "what no rule names may also just fail, and a call may have several rules" {
    const testing = std.testing;
    var filter: Filter = .init(.{ .fail = .PERM });
    filter.allowWhere(&.{"prctl"}, 0, 0xffffffff, 22);
    filter.allowWhere(&.{"prctl"}, 0, 0xffffffff, 38);
    const fails = SECCOMP.RET.ERRNO | @as(u32, @backingInt(linux.E.PERM));
    var data: SECCOMP.data = std.mem.zeroes(SECCOMP.data);
    data.arch = own_architecture;
    data.nr = @intCast(@backingInt(linux.SYS.prctl));
    inline for (.{ .{ 22, SECCOMP.RET.ALLOW }, .{ 38, SECCOMP.RET.ALLOW }, .{ 4, fails } }) |case| {
        data.arg0 = case[0];
        try testing.expectEqual(case[1], verdict(&filter, &data));
    }
    data.nr = @intCast(@backingInt(linux.SYS.read));
    try testing.expectEqual(fails, verdict(&filter, &data));
    data.arch ^= 1;
    try testing.expectEqual(SECCOMP.RET.KILL_PROCESS, verdict(&filter, &data));
}
