//! ROOT/last-install.json: how the last attempt to install something ended, for whoever asks later.
//!
//!     {"format":1,"sequence":N,"digest":HEX|null,"model":NAME|null,"version":V|null,"ok":BOOL,
//!      "check":CHECK|null,"reason":TEXT|null,"time":MS,"boot":ID,"boot_ms":MS}
//!
//! `sequence` counts the attempts of this device, and orders them whatever its clock says; `time` is
//! the clock's, since 1970, `boot_ms` the time since the start of the machine that `boot` names.
//! `digest` is the package's, the same before and after signing; null where the attempt did not come so
//! far. An attempt that cannot be recorded has succeeded or failed all the same.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const boot = @import("boot.zig");
const document = @import("document.zig");
const events = @import("events.zig");
const json_text = @import("json_text.zig");
const naming = @import("naming.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const replace = @import("replace.zig").replace;
const Store = @import("store.zig").Store;

const file_name = "last-install.json";
const max_bytes = 16 << 10;

/// What is known of an attempt by the time it ends.
pub const Attempt = struct {
    digest: ?naming.Hex = null,
    model: ?[]const u8 = null,
    version: ?[]const u8 = null,

    /// `refusal` is null where it succeeded. The store is locked.
    pub fn record(self: Attempt, arena: Allocator, store: *Store, refusal: ?*const Refusal) void {
        var out: Io.Writer.Allocating = .init(arena);
        self.write(&out.writer, previousSequence(arena, store) +| 1, refusal) catch return;
        replace(store.io, store.root, file_name, out.written()) catch {};
        events.record(store.io, store.root, .{
            .kind = if (refusal == null) .install else .refused,
            .model = self.model,
            .version = self.version,
            .reason = if (refusal) |it| it.reason() else null,
        });
    }

    fn write(self: Attempt, out: *Io.Writer, sequence: u64, refusal: ?*const Refusal) Io.Writer.Error!void {
        try out.print("{{\"format\":1,\"sequence\":{d},\"digest\":", .{sequence});
        try json_text.orNull(out, if (self.digest) |*hex| hex else null);
        try out.writeAll(",\"model\":");
        try json_text.orNull(out, self.model);
        try out.writeAll(",\"version\":");
        try json_text.orNull(out, self.version);
        try out.print(",\"ok\":{},\"check\":", .{refusal == null});
        try json_text.orNull(out, if (refusal) |it| @tagName(it.check) else null);
        try out.writeAll(",\"reason\":");
        try json_text.orNull(out, if (refusal) |it| it.reason() else null);
        try out.print(",\"time\":{d},\"boot\":\"{s}\",\"boot_ms\":{d}}}", .{ boot.wallMilliseconds(), &boot.id(), boot.milliseconds() });
    }
};

/// The record as it stands in the file, which is one JSON object; null where there is none, or no whole one.
pub fn read(arena: Allocator, store: *Store) ?[]const u8 {
    const bytes = store.root.readFileAlloc(store.io, file_name, arena, .limited(max_bytes)) catch return null;
    _ = parse(arena, bytes) catch return null;
    return bytes;
}

fn previousSequence(arena: Allocator, store: *Store) u64 {
    const bytes = read(arena, store) orelse return 0;
    return parse(arena, bytes) catch 0;
}

fn parse(arena: Allocator, bytes: []const u8) refusals.Error!u64 {
    var ignored: Refusal = .{};
    const doc: document.Document = .{ .refusal = &ignored, .check = .state, .title = file_name };
    const root = try doc.parse(arena, bytes);
    try doc.onlyFields(root, &.{ "format", "sequence", "digest", "model", "version", "ok", "check", "reason", "time", "boot", "boot_ms" });
    _ = try doc.integer(root, "format", 1);
    return doc.integer(root, "sequence", std.math.maxInt(i64));
}
