//! `edgepack-agent capture list`: which captures there are, and `capture read NAME`, which writes them out.
//!
//! The list is {"device":ID|null,"models":[{"name":N,"first":N,"last":N,"bytes":N},...]}: no number below
//! `first` or above `last` is there. `capture read NAME --after N` writes whole records with higher numbers,
//! oldest first, and nothing else; where the oldest went before they could be written, a line
//! "gone FIRST LAST" on stderr says between which numbers.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const capture_id = @import("capture_id.zig");
const format = @import("capture_format.zig");
const naming = @import("naming.zig");
const Reader = @import("capture_reader.zig").Reader;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const segments = @import("capture_segments.zig");
const states = @import("state.zig");

pub const Error = refusals.Error || Io.Writer.Error;

/// How much is held against its checksum before it is written.
const run_bytes = 1 << 20;

/// ROOT/captures; null where nothing was ever captured.
pub fn open(io: Io, refusal: *Refusal, root: []const u8) error{Refused}!?Io.Dir {
    const dir = Io.Dir.cwd().openDir(io, root, .{}) catch |err|
        return refusal.because(.state, "cannot open the store {s}: {t}", .{ root, err });
    defer dir.close(io);
    return dir.openDir(io, format.folder, .{ .iterate = true }) catch |err| switch (err) {
        error.FileNotFound => null,
        else => refusal.because(.state, "cannot open {s}/captures: {t}", .{ root, err }),
    };
}

pub fn list(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, out: *Io.Writer) Error!void {
    const dir = try open(io, refusal, root) orelse return out.writeAll("{\"device\":null,\"models\":[]}\n");
    defer dir.close(io);
    const id = capture_id.get(io, dir) catch |err|
        return refusal.because(.state, "cannot write {s}/captures/{s}: {t}", .{ root, capture_id.file_name, err });
    try out.print("{{\"device\":\"{s}\",\"models\":[", .{&id});
    var any = false;
    for (try names(arena, io, refusal, dir)) |name| {
        const model = dir.openDir(io, name, .{ .iterate = true }) catch |err| switch (err) {
            error.FileNotFound, error.NotDir => continue,
            else => return refusal.because(.state, "cannot open {s}/captures/{s}: {t}", .{ root, name, err }),
        };
        defer model.close(io);
        const survey: segments.Survey = .of(io, model);
        const oldest = survey.oldest orelse continue;
        const last = lastNumber(io, model) orelse continue;
        try out.print("{s}{{\"name\":\"{s}\",\"first\":{d},\"last\":{d},\"bytes\":{d}}}", .{
            if (any) "," else "", name, oldest.first, last, survey.bytes,
        });
        any = true;
    }
    try out.writeAll("]}\n");
}

/// Which records of a model are written out.
pub const Wanted = struct {
    name: []const u8,
    after: u64 = 0,
    max_bytes: u64 = std.math.maxInt(u64),

    /// `words` are those after "read", at least one.
    pub fn parse(refusal: *Refusal, words: []const []const u8) error{Refused}!Wanted {
        var wanted: Wanted = .{ .name = words[0] };
        var rest = words[1..];
        while (rest.len > 0) : (rest = rest[2..]) {
            const field = if (std.mem.eql(u8, rest[0], "--after")) &wanted.after else if (std.mem.eql(u8, rest[0], "--max-bytes")) &wanted.max_bytes else return refusal.because(.usage, "capture read NAME takes --after NUMBER and --max-bytes N, not {s}", .{rest[0]});
            if (rest.len < 2) return refusal.because(.usage, "{s} needs a number", .{rest[0]});
            field.* = std.fmt.parseInt(u64, rest[1], 10) catch return refusal.because(.usage, "{s} needs a number, not {s}", .{ rest[0], rest[1] });
        }
        return wanted;
    }
};

pub fn read(io: Io, refusal: *Refusal, root: []const u8, wanted: Wanted, out: *Io.Writer) Error!void {
    const name = wanted.name;
    const max_bytes = wanted.max_bytes;
    const captures = try open(io, refusal, root) orelse return refusal.because(.state, "nothing was captured of {s}", .{name});
    defer captures.close(io);
    const dir = captures.openDir(io, name, .{ .iterate = true }) catch |err| return switch (err) {
        error.FileNotFound => refusal.because(.state, "nothing was captured of {s}", .{name}),
        else => refusal.because(.state, "cannot open {s}/captures/{s}: {t}", .{ root, name, err }),
    };
    defer dir.close(io);
    var reader: Reader = .{ .io = io, .dir = dir, .after = wanted.after };
    defer reader.close();
    var written: u64 = 0;
    while (reader.next(@min(run_bytes, max_bytes - written))) |run| {
        if (written > 0 and run.bytes > max_bytes - written) return;
        if (reader.gone) |gone| tellGone(io, gone.first, gone.last);
        run.copyTo(io, out) catch |err| switch (err) {
            error.WriteFailed => return error.WriteFailed,
            error.ReadFailed => return refusal.because(.disk, "cannot read the captures of {s} behind {d}", .{ name, run.first }),
        };
        written +|= run.bytes;
        if (written >= max_bytes) return;
    }
}

fn tellGone(io: Io, first: u64, last: u64) void {
    var buffer: [64]u8 = undefined;
    var stderr = Io.File.stderr().writerStreaming(io, &buffer);
    stderr.interface.print("gone {d} {d}\n", .{ first, last }) catch return;
    stderr.interface.flush() catch {};
}

/// Models that have a folder of captures, sorted.
pub fn names(arena: Allocator, io: Io, refusal: *Refusal, captures: Io.Dir) refusals.Error![]const []const u8 {
    var found: std.ArrayList([]const u8) = .empty;
    var entries = captures.iterate();
    while (entries.next(io) catch |err| return refusal.because(.state, "cannot list captures/: {t}", .{err})) |entry| {
        if (entry.kind == .file or !naming.isName(entry.name)) continue;
        if (found.items.len == states.max_models) return refusal.because(.state, "captures of more than {d} models", .{states.max_models});
        try found.append(arena, try arena.dupe(u8, entry.name));
    }
    std.sort.heap([]const u8, found.items, {}, lessText);
    return found.items;
}

/// No record of the model has a higher one; null where there is none at all.
pub fn lastNumber(io: Io, dir: Io.Dir) ?u64 {
    const newest = (segments.Survey.of(io, dir).newest orelse return null).first;
    var last = newest -| 1;
    var heads = segments.Heads.open(io, dir, newest) orelse return last;
    defer heads.close();
    while (heads.next()) |head| last = @max(last, head.number);
    return last;
}

fn lessText(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.order(u8, a, b) == .lt;
}
