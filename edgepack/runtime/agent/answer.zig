//! The one JSON object that a command prints.
//!
//!     {"ok":true,"model":NAME,"version":V,"previous":V|null,"changed":BOOL}    install, rollback
//!     {"ok":true,"models":[those]}                                             pull
//!     {"ok":false,"check":CHECK,"reason":TEXT}                                 any failure
//!     {"blobs":[HEX,...]}
//!
//! What `status` answers is in status.zig.

const std = @import("std");
const Writer = std.Io.Writer;
const json_text = @import("json_text.zig");
const naming = @import("naming.zig");
const Outcome = @import("install.zig").Outcome;
const Refusal = @import("refusal.zig").Refusal;

pub fn failure(out: *Writer, refusal: *const Refusal) Writer.Error!void {
    try out.print("{{\"ok\":false,\"check\":\"{t}\",\"reason\":", .{refusal.check});
    try std.json.Stringify.encodeJsonString(refusal.reason(), .{}, out);
    try out.writeAll("}\n");
}

/// Names and versions have passed naming.zig: nothing in them needs escaping.
fn members(out: *Writer, outcome: Outcome) Writer.Error!void {
    try out.print("{{\"ok\":true,\"model\":\"{s}\",\"version\":\"{s}\",\"previous\":", .{ outcome.model, outcome.version });
    try json_text.orNull(out, outcome.previous);
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
