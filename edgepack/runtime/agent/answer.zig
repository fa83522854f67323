//! The one JSON object that a command prints.
//!
//!     {"ok":true,"model":NAME,"version":V,"previous":V|null,"changed":BOOL}    install, rollback
//!     {"ok":true,"models":[those]}                                             pull
//!     {"ok":false,"check":CHECK,"reason":TEXT}                                 any failure
//!     {"agent":V,"arch":A,"target":T|null,"serving":BOOL,"disk_free":BYTES,"keys":[ID,...],
//!      "models":[{"name":N,"current":{"version":V,"manifest":HEX}|null,"previous":same,"floor":V}]}
//!     {"blobs":[HEX,...]}

const std = @import("std");
const Writer = std.Io.Writer;
const builtin = @import("builtin");
const Installed = @import("state.zig").Installed;
const naming = @import("naming.zig");
const Outcome = @import("install.zig").Outcome;
const PublicKey = @import("keys.zig").PublicKey;
const Refusal = @import("refusal.zig").Refusal;
const State = @import("state.zig").State;

pub const NamedState = struct { name: []const u8, state: State };

pub const Status = struct {
    agent: []const u8,
    target: ?[]const u8,
    serving: bool,
    disk_free: u64,
    keys: []const PublicKey,
    models: []const NamedState,
};

pub fn failure(out: *Writer, refusal: *const Refusal) Writer.Error!void {
    try out.print("{{\"ok\":false,\"check\":\"{t}\",\"reason\":", .{refusal.check});
    try std.json.Stringify.encodeJsonString(refusal.reason(), .{}, out);
    try out.writeAll("}\n");
}

/// Names and versions have passed naming.zig: nothing in them needs escaping.
fn members(out: *Writer, outcome: Outcome) Writer.Error!void {
    try out.print("{{\"ok\":true,\"model\":\"{s}\",\"version\":\"{s}\",\"previous\":", .{ outcome.model, outcome.version });
    try text(out, outcome.previous);
    try out.print(",\"changed\":{}}}", .{outcome.changed});
}

pub fn one(out: *Writer, outcome: Outcome) Writer.Error!void {
    try members(out, outcome);
    try out.writeByte('\n');
}

pub fn many(out: *Writer, outcomes: []const Outcome) Writer.Error!void {
    try out.writeAll("{\"ok\":true,\"models\":[");
    for (outcomes, 0..) |outcome, index| {
        if (index > 0) try out.writeByte(',');
        try members(out, outcome);
    }
    try out.writeAll("]}\n");
}

pub fn blobs(out: *Writer, list: []const naming.Hex) Writer.Error!void {
    try out.writeAll("{\"blobs\":[");
    for (list, 0..) |*hex, index| try out.print("{s}\"{s}\"", .{ if (index > 0) "," else "", hex });
    try out.writeAll("]}\n");
}

pub fn status(out: *Writer, it: Status) Writer.Error!void {
    try out.print("{{\"agent\":\"{s}\",\"arch\":\"{t}\",\"target\":", .{ it.agent, builtin.cpu.arch });
    try text(out, it.target);
    try out.print(",\"serving\":{},\"disk_free\":{d},\"keys\":[", .{ it.serving, it.disk_free });
    for (it.keys, 0..) |*key, index| try out.print("{s}\"{s}\"", .{ if (index > 0) "," else "", &key.id });
    try out.writeAll("],\"models\":[");
    for (it.models, 0..) |model, index| {
        try out.print("{s}{{\"name\":\"{s}\",\"current\":", .{ if (index > 0) "," else "", model.name });
        try installed(out, model.state.current);
        try out.writeAll(",\"previous\":");
        try installed(out, model.state.previous);
        try out.print(",\"floor\":\"{s}\"}}", .{model.state.floor});
    }
    try out.writeAll("]}\n");
}

fn installed(out: *Writer, it: ?Installed) Writer.Error!void {
    const known = it orelse return out.writeAll("null");
    try out.print("{{\"version\":\"{s}\",\"manifest\":\"{s}\"}}", .{ known.version, &known.digests.get(.manifest) });
}

fn text(out: *Writer, it: ?[]const u8) Writer.Error!void {
    const known = it orelse return out.writeAll("null");
    try out.print("\"{s}\"", .{known});
}
