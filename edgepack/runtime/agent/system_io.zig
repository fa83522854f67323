//! The part of std.Io that the agent uses, so that the executable does not carry the other part.
//!
//! std.Io is a table of functions, and the usual table refers to all of them: processes, DNS,
//! cancellation, memory maps, 150 KB. Here the table is std.Io.failing, in which everything fails,
//! with the functions filled in that are called. What is missing shows itself as error.InputOutput,
//! error.FileNotFound or the like at the first try, in every test that goes there.

const std = @import("std");
const Io = std.Io;

const used = [_][]const u8{
    "operate",            "dirCreateDir", "dirOpenDir",     "dirStatFile",        "dirAccess",    "dirCreateFile",
    "dirOpenFile",        "dirClose",     "dirRead",        "dirDeleteFile",      "dirDeleteDir", "dirRename",
    "fileStat",           "fileLength",   "fileClose",      "fileReadPositional", "fileSync",     "fileLock",
    "fileSetPermissions", "now",          "netConnectUnix", "netClose",
};

const full = Io.Threaded.global_single_threaded.io().vtable;

const vtable: Io.VTable = table: {
    var picked = Io.failing.vtable.*;
    for (used) |name| @field(picked, name) = @field(full, name);
    break :table picked;
};

pub fn io() Io {
    return .{ .userdata = Io.Threaded.global_single_threaded, .vtable = &vtable };
}
