//! Lines for people, on stderr; with --detach that is ROOT/run/agent.log.

const std = @import("std");
const linux = std.os.linux;

/// One line in one write, so that threads do not mix theirs; a longer one is cut.
pub fn line(comptime format: []const u8, args: anytype) void {
    var buffer: [1024]u8 = undefined;
    var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 1]);
    writer.print("edgepack-agent: " ++ format, args) catch {};
    buffer[writer.end] = '\n';
    _ = linux.write(2, &buffer, writer.end + 1);
}
