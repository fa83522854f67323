//! What the device is and how it does, as one JSON object: the answer of `edgepack-agent status` and,
//! while a server runs, of GET /v2/status.
//!
//!     {"agent":V,"arch":A,"machine":M,"target":T|null,"serving":BOOL,"uptime":SECONDS,"boot":ID,
//!      "time":MS,"disk_free":BYTES,"disk_used":BYTES,"keys":[ID,...],"last_install":{...}|null,"push":{...}|null,
//!      "models":[{"name":N,"current":{"version":V,"manifest":HEX}|null,"previous":same,"floor":V,
//!                 "served":{"version":V|null,"state":"READY"|"UNAVAILABLE","reason":TEXT,
//!                           "deaths":N,"restarts":N,"psi":X|null}|null}]}
//!
//! "served" and "push" (push_state.zig) are null where nobody serves; "psi" is the index of the tensor that
//! drifted the farthest, as drift.zig has it; "last_install" is as last_install.zig has it. "time" is the
//! clock's, which may be wrong; "boot" and "uptime" are the kernel's.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;
const Writer = Io.Writer;
const Allocator = std.mem.Allocator;
const linux = std.os.linux;
const boot = @import("boot.zig");
const capture_format = @import("capture_format.zig");
const json_text = @import("json_text.zig");
const keys = @import("keys.zig");
const last_install = @import("last_install.zig");
const Models = @import("models.zig").Models;
const naming = @import("naming.zig");
const push_state = @import("push_state.zig");
const refusals = @import("refusal.zig");
const states = @import("state.zig");
const Store = @import("store.zig").Store;
const tensor_json = @import("tensor_json.zig");

const Named = struct { name: []const u8, state: states.State };

pub const Status = struct {
    agent: []const u8,
    target: ?[]const u8,
    serving: bool,
    disk_free: u64,
    disk_used: u64,
    keys: []const keys.PublicKey,
    last_install: ?[]const u8,
    models: []const Named,

    /// What the store tells. The result lives in `arena`.
    pub fn gather(arena: Allocator, store: *Store, agent: []const u8, serving: bool) refusals.Error!Status {
        var models: std.ArrayList(Named) = .empty;
        for (try store.modelNames(arena)) |name| {
            try models.append(arena, .{ .name = name, .state = try store.load(arena, name) orelse continue });
        }
        return .{
            .agent = agent,
            .target = store.target(arena) catch null, // not set up yet: that is a status too
            .serving = serving,
            .disk_free = try store.freeBytes(),
            .disk_used = usedBytes(store.io, store.root),
            .keys = try keys.load(arena, store.io, store.refusal, store.root),
            .last_install = last_install.read(arena, store),
            .models = models.items,
        };
    }

    /// `served` is there where a server answers.
    pub fn write(self: *const Status, out: *Writer, served: ?*Models) Writer.Error!void {
        try out.print("{{\"agent\":\"{s}\",\"arch\":\"{t}\",\"machine\":", .{ self.agent, builtin.cpu.arch });
        var names: linux.utsname = undefined;
        try json_text.orNull(out, if (linux.errno(linux.uname(&names)) == .SUCCESS) std.mem.sliceTo(&names.machine, 0) else "");
        try out.writeAll(",\"target\":");
        try json_text.orNull(out, self.target);
        try out.print(",\"serving\":{},\"uptime\":{d},\"boot\":\"{s}\",\"time\":{d},\"disk_free\":{d},\"disk_used\":{d},\"keys\":[", .{
            self.serving, boot.milliseconds() / std.time.ms_per_s, &boot.id(), boot.wallMilliseconds(), self.disk_free, self.disk_used,
        });
        for (self.keys, 0..) |*key, index| try out.print("{s}\"{s}\"", .{ if (index > 0) "," else "", &key.id });
        try out.print("],\"last_install\":{s},\"push\":", .{self.last_install orelse "null"});
        if (served != null) try push_state.state.writeStatus(out) else try out.writeAll("null");
        try out.writeAll(",\"models\":[");
        for (self.models, 0..) |*model, index| {
            if (index > 0) try out.writeByte(',');
            try writeModel(out, model, served);
        }
        try out.writeAll("]}");
    }
};

fn writeModel(out: *Writer, model: *const Named, served: ?*Models) Writer.Error!void {
    try out.print("{{\"name\":\"{s}\",\"current\":", .{model.name});
    try installed(out, model.state.current);
    try out.writeAll(",\"previous\":");
    try installed(out, model.state.previous);
    try out.print(",\"floor\":\"{s}\",\"served\":", .{model.state.floor});
    var health: Models.Health = undefined;
    try writeHealth(out, if (served) |models| models.health(model.name, &health) else null);
    try out.writeByte('}');
}

fn writeHealth(out: *Writer, health: ?*const Models.Health) Writer.Error!void {
    const it = health orelse return out.writeAll("null");
    try out.writeAll("{\"version\":");
    try json_text.orNull(out, if (it.version.len > 0) it.version else null);
    try out.print(",\"state\":\"{s}\",\"reason\":", .{if (it.version.len > 0) "READY" else "UNAVAILABLE"});
    try json_text.orNull(out, it.trouble.reason());
    try out.print(",\"deaths\":{d},\"restarts\":{d},\"psi\":", .{ it.deaths, it.restarts });
    try tensor_json.writeFloat(f64, out, it.psi orelse std.math.nan(f64));
    try out.writeByte('}');
}

fn installed(out: *Writer, it: ?states.Installed) Writer.Error!void {
    const known = it orelse return out.writeAll("null");
    try out.print("{{\"version\":\"{s}\",\"manifest\":\"{s}\"}}", .{ known.version, &known.digests.get(.manifest) });
}

/// Of all blobs and captures. A file that goes meanwhile is not counted.
fn usedBytes(io: Io, root: Io.Dir) u64 {
    var total = sizesIn(io, root, "blobs/sha256");
    const captures = root.openDir(io, capture_format.folder, .{ .iterate = true }) catch return total;
    defer captures.close(io);
    var entries = captures.iterate();
    while (entries.next(io) catch return total) |entry| {
        if (naming.isName(entry.name)) total +|= sizesIn(io, captures, entry.name);
    }
    return total;
}

fn sizesIn(io: Io, parent: Io.Dir, name: []const u8) u64 {
    const dir = parent.openDir(io, name, .{ .iterate = true }) catch return 0;
    defer dir.close(io);
    var total: u64 = 0;
    var entries = dir.iterate();
    while (entries.next(io) catch return total) |entry| {
        if (entry.kind != .file) continue;
        total +|= (dir.statFile(io, entry.name, .{ .follow_symlinks = false }) catch continue).size;
    }
    return total;
}
