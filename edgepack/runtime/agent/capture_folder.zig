//! ROOT/captures/NAME as the writer of captures uses it: numbers, the segment that grows, and the limits.
//!
//! `next` holds the lowest number that was never reserved, in decimal. It is replaced, and safe on the
//! disk, before any number below it is used: however the agent ends, no number is given twice. Each
//! start therefore leaves a gap.
//!
//! A record is written in one piece behind the last one. Where that fails it is cut off again; where even
//! that fails the segment ends, since a reader goes no further. What is written is synced when a segment
//! ends and when sync() is called, not with each record: flash wears.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const disk = @import("disk.zig");
const format = @import("capture_format.zig");
const replacing = @import("replace.zig");
const replace = replacing.replace;
const segments = @import("capture_segments.zig");
const Survey = segments.Survey;
const Watch = @import("capture_age.zig").Watch;

/// How many numbers are reserved at once.
pub const block = 1024;
/// How many may be reserved and not yet used.
pub const max_ahead = 2 * block;
const next_name = "next";
const max_segment_bytes = 8 << 20;
/// A segment takes no more than this share of the size and of the age that the model's captures may have.
const shares = 8;
/// Each start begins one; they must not become too many to list.
const max_segments = 512;

pub const Limits = struct { max_bytes: u64, max_age_s: ?u64 };

/// What captures leave free of a file system of this size: 5 %, but 8 MiB at least and 1 GiB at most.
pub fn floorBytes(total: u64) u64 {
    return std.math.clamp(total / 20, 8 << 20, 1 << 30);
}

pub const Error = error{
    /// Larger than all captures of the model may be.
    TooLarge,
    /// The file system would have less room left than it is to have.
    NoRoom,
    NoSpaceLeft,
    ReadOnlyFileSystem,
    FileTooBig,
    WriteFailed,
};

pub const Folder = struct {
    io: Io,
    dir: Io.Dir,
    /// Of all segments, as far as known.
    bytes: u64,
    /// The one that grows.
    file: ?Io.File = null,
    written: u64 = 0,
    /// By the clock since the machine's start, in milliseconds.
    begun: u64 = 0,
    unsynced: bool = false,

    pub const Opened = struct { folder: Folder, next: u64 };

    /// Makes the folder where it is missing. `next` is the lowest number that may be reserved.
    pub fn open(io: Io, root: Io.Dir, name: []const u8) !Opened {
        const captures = try openDir(io, root, format.folder);
        defer captures.close(io);
        const dir = try openDir(io, captures, name);
        errdefer dir.close(io);
        const survey: Survey = .of(io, dir);
        const reserved = readNext(io, dir) orelse afterLast(io, dir, survey);
        const last = if (survey.newest) |it| it.first else 0;
        return .{ .folder = .{ .io = io, .dir = dir, .bytes = survey.bytes }, .next = @max(reserved, last + 1) };
    }

    pub fn close(self: *Folder) void {
        self.endSegment();
        self.dir.close(self.io);
    }

    /// Numbers below `end` may be used when this returns.
    pub fn reserve(self: *Folder, end: u64) !void {
        var buffer: [24]u8 = undefined;
        try replace(self.io, self.dir, next_name, std.fmt.bufPrint(&buffer, "{d}", .{end}) catch unreachable); // 20 digits
    }

    /// Adds a whole record, whose number is higher than those before. The oldest segments go where it
    /// would not fit beside them.
    pub fn append(self: *Folder, number: u64, record: []const u8, limits: Limits, boot_ms: u64) Error!void {
        if (record.len > limits.max_bytes) return error.TooLarge;
        if (self.file != null and self.isFull(limits, boot_ms)) self.endSegment();
        while (self.bytes + record.len > limits.max_bytes) if (!self.removeOldest()) break;
        try self.keepFloor(record.len);
        const file = self.file orelse try self.beginSegment(number, boot_ms);
        writeAt(file.handle, record, self.written) catch |err| {
            self.cut(number);
            return err;
        };
        self.written += record.len;
        self.bytes += record.len;
        self.unsynced = true;
    }

    /// Deletes what is older than it may be, what is too much since the rules changed, and what takes room that others need.
    pub fn expire(self: *Folder, limits: Limits, watch: *const Watch) void {
        self.keepFloor(0) catch {};
        while (self.bytes > limits.max_bytes) if (!self.removeOldest()) break;
        const max_age_s = limits.max_age_s orelse return;
        while (Survey.of(self.io, self.dir).oldest) |oldest| { // each pass deletes one, or ends
            if (!watch.isOlder(oldest.written, max_age_s * std.time.ms_per_s)) return;
            if (!self.removeOldest()) return;
        }
    }

    /// What has been written is on the disk when this returns, if the disk can.
    pub fn sync(self: *Folder) void {
        const file = self.file orelse return;
        if (!self.unsynced) return;
        self.unsynced = false;
        _ = linux.fdatasync(file.handle);
        replacing.syncDir(self.io, self.dir) catch {};
    }

    pub fn endSegment(self: *Folder) void {
        const file = self.file orelse return;
        self.sync();
        file.close(self.io);
        self.file = null;
    }

    /// A segment that somebody deleted would take room, unseen, for as long as it is open.
    pub fn endIfDeleted(self: *Folder) void {
        const file = self.file orelse return;
        const stat = file.stat(self.io) catch return;
        if (stat.nlink > 0) return;
        self.unsynced = false;
        self.endSegment();
        self.bytes = Survey.of(self.io, self.dir).bytes;
    }

    fn isFull(self: *Folder, limits: Limits, boot_ms: u64) bool {
        self.endIfDeleted();
        if (self.file == null) return false;
        if (self.written >= @min(max_segment_bytes, limits.max_bytes / shares)) return true;
        const max_age_s = limits.max_age_s orelse return false;
        return boot_ms -| self.begun >= max_age_s * std.time.ms_per_s / shares;
    }

    fn beginSegment(self: *Folder, first: u64, boot_ms: u64) Error!Io.File {
        const survey: Survey = .of(self.io, self.dir);
        if (survey.count >= max_segments) _ = self.removeOldest();
        const file = self.dir.createFile(self.io, &format.segmentName(first), .{ .exclusive = true, .permissions = .fromMode(0o640) }) catch |err| return switch (err) {
            error.NoSpaceLeft => error.NoSpaceLeft,
            error.ReadOnlyFileSystem => error.ReadOnlyFileSystem,
            else => error.WriteFailed,
        };
        self.file = file;
        self.written = 0;
        self.begun = boot_ms;
        return file;
    }

    /// Takes away what a failed write left of a record.
    fn cut(self: *Folder, number: u64) void {
        const file = self.file.?;
        if (self.written == 0) {
            self.unsynced = false;
            self.endSegment();
            segments.remove(self.io, self.dir, number) catch {};
        } else if (linux.errno(linux.ftruncate(file.handle, @intCast(self.written))) != .SUCCESS) self.endSegment();
    }

    /// False where there is none. The one that grows goes last, and ends first.
    fn removeOldest(self: *Folder) bool {
        const survey: Survey = .of(self.io, self.dir);
        const oldest = survey.oldest orelse {
            self.bytes = 0;
            return false;
        };
        if (survey.count == 1) self.endSegment();
        segments.remove(self.io, self.dir, oldest.first) catch return false;
        self.bytes = survey.bytes - oldest.bytes;
        return true;
    }

    fn keepFloor(self: *Folder, more: u64) Error!void {
        while (true) { // each pass deletes a segment, or ends
            const room = disk.room(self.dir.handle) orelse return;
            if (room.free >= floorBytes(room.total) +| more) return;
            if (!self.removeOldest()) return error.NoRoom;
        }
    }
};

/// Owner and group only: it is the applications' data.
fn openDir(io: Io, parent: Io.Dir, name: []const u8) !Io.Dir {
    parent.createDir(io, name, .fromMode(0o750)) catch |err| switch (err) {
        error.PathAlreadyExists => {},
        else => return err,
    };
    return parent.openDir(io, name, .{ .iterate = true });
}

/// What `next` says; null where it is missing or no number.
pub fn readNext(io: Io, dir: Io.Dir) ?u64 {
    var buffer: [24]u8 = undefined;
    const text = dir.readFile(io, next_name, &buffer) catch return null;
    const number = std.fmt.parseInt(u63, text, 10) catch return null;
    return if (number > 0) number else null;
}

/// Above all that can have been reserved where `next` does not tell: the last record, and what may have
/// been reserved and not used beyond it.
fn afterLast(io: Io, dir: Io.Dir, survey: Survey) u64 {
    const newest = survey.newest orelse return 1;
    var last = newest.first;
    var heads = segments.Heads.open(io, dir, newest.first) orelse return last + max_ahead + 1;
    defer heads.close();
    while (heads.next()) |head| last = @max(last, head.number);
    return last + max_ahead + 1;
}

fn writeAt(fd: linux.fd_t, bytes: []const u8, offset: u64) Error!void {
    var done: usize = 0;
    while (done < bytes.len) {
        const count = linux.pwrite(fd, bytes.ptr + done, bytes.len - done, @intCast(offset + done));
        switch (linux.errno(count)) {
            .SUCCESS => if (count == 0) return error.WriteFailed,
            .INTR => continue,
            .NOSPC, .DQUOT => return error.NoSpaceLeft,
            .ROFS => return error.ReadOnlyFileSystem,
            .FBIG => return error.FileTooBig,
            else => return error.WriteFailed,
        }
        done += count;
    }
}

test {
    _ = @import("capture_folder_test.zig");
}
