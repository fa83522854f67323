//! Text that may be unknown, as JSON has it.

const std = @import("std");
const Writer = std.Io.Writer;

/// A string with what needs it escaped, or null.
pub fn orNull(out: *Writer, text: ?[]const u8) Writer.Error!void {
    const known = text orelse return out.writeAll("null");
    try std.json.Stringify.encodeJsonString(known, .{}, out);
}
