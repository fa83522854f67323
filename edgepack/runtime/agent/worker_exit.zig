//! Words for how a worker ended and for the statuses that it answers with.

const std = @import("std");
const linux = std.os.linux;

/// `status` is wait4's, or null where it is not known any more.
pub fn describe(buffer: []u8, status: ?u32) []const u8 {
    const known = status orelse return "it had ended before";
    if (linux.W.IFEXITED(known)) {
        const code = linux.W.EXITSTATUS(known);
        return std.fmt.bufPrint(buffer, "it left with exit code {d}", .{code}) catch buffer;
    }
    const number: u32 = known & 0x7f;
    return std.fmt.bufPrint(buffer, "signal {d} ({s})", .{ number, signalText(number) }) catch buffer;
}

fn signalText(number: u32) []const u8 {
    return switch (number) {
        4 => "illegal instruction: is the model built for another CPU?",
        6 => "aborted",
        7 => "bus error: the weights file was cut or memory ran out",
        8 => "arithmetic fault",
        9 => "killed: by hand, or memory ran out",
        11 => "segmentation fault",
        31 => "forbidden system call",
        else => "see signal(7)",
    };
}

/// An ep_status of edgepack.h, or -100 minus an errno.
pub fn statusText(status: i32) []const u8 {
    return switch (status) {
        -1 => "it is made for another agent, or was called wrongly",
        -2 => "too little memory",
        -3 => "the weights have another size than the model was compiled for",
        -4 => "misaligned memory",
        -5 => "a kernel reported failure",
        -4195...-101 => errnoText(@intCast(-100 - status)),
        else => "unknown status",
    };
}

fn errnoText(number: u16) []const u8 {
    return switch (@as(linux.E, @fromBackingInt(number))) {
        .NOENT => "a file is missing",
        .ACCES, .PERM => "permission denied",
        .NOMEM => "out of memory",
        .BADF => "bad file descriptor",
        .MFILE, .NFILE => "too many open files",
        else => "a system call failed",
    };
}

test "an end and a status are told in words" {
    const testing = std.testing;
    var buffer: [128]u8 = undefined;
    try testing.expectEqualStrings("it left with exit code 1", describe(&buffer, 0x100));
    try testing.expectEqualStrings("signal 9 (killed: by hand, or memory ran out)", describe(&buffer, 9));
    try testing.expectEqualStrings("signal 4 (illegal instruction: is the model built for another CPU?)", describe(&buffer, 0x84));
    for (0..256) |status| try testing.expect(describe(&buffer, @intCast(status)).len > 0);
    try testing.expectEqualStrings("a file is missing", statusText(-102));
    var status: i32 = -5000;
    while (status <= 5000) : (status += 1) try testing.expect(statusText(status).len > 0);
}
