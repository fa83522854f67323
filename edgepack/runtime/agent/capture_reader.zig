//! The captures of one model, read from ROOT/captures/NAME while somebody else may write and delete there.
//!
//! What is given out is runs: whole records that lie one behind the other in one segment, each held
//! against its checksum. A segment that is deleted meanwhile is read to its end, since it is open. Memory
//! is one chunk, whatever the files say: lengths are bounded by the format and by the file itself,
//! numbers only rise, and so does every loop here.

const std = @import("std");
const Io = std.Io;
const format = @import("capture_format.zig");
const segments = @import("capture_segments.zig");

const chunk_bytes = 16 << 10;

/// Records that lie behind one another in `file`, which is open for as long as the reader goes no further.
pub const Run = struct {
    file: Io.File,
    offset: u64,
    bytes: u64,
    first: u64,
    last: u64,
    records: u64,

    pub fn copyTo(self: Run, io: Io, out: *Io.Writer) error{ ReadFailed, WriteFailed }!void {
        var buffer: [chunk_bytes]u8 = undefined;
        var done: u64 = 0;
        while (done < self.bytes) {
            const chunk = try readChunk(io, self.file, self.offset + done, self.bytes - done, &buffer);
            try out.writeAll(chunk);
            done += chunk.len;
        }
    }
};

/// Numbers that are not there any more, or never were: the oldest segments went.
pub const Gone = struct { first: u64, last: u64 };

pub const Reader = struct {
    io: Io,
    /// Opened with .iterate; nobody else lists it at the same time.
    dir: Io.Dir,
    /// Only what has a higher number is given out.
    after: u64,
    /// What next() found missing before the run that it gave.
    gone: ?Gone = null,
    heads: ?segments.Heads = null,
    /// Number that names the open segment.
    segment: u64 = 0,

    pub fn close(self: *Reader) void {
        if (self.heads) |heads| heads.close();
        self.heads = null;
    }

    /// As many records as fit into `max_bytes`, or one; null behind the last. The run before it is not to
    /// be used any more.
    pub fn next(self: *Reader, max_bytes: u64) ?Run {
        self.gone = null;
        if (self.heads == null and !self.begin()) return null;
        while (true) { // each pass ends a segment, and their numbers rise
            if (self.nextInSegment(max_bytes)) |run| {
                self.after = run.last;
                return run;
            }
            if (!self.proceed()) return null;
        }
    }

    fn begin(self: *Reader) bool {
        // Tried again where the segment goes before it is open; the next one found lies higher.
        while (startingSegment(self.io, self.dir, self.after)) |first| {
            if (first > self.after +| 1) self.gone = .{ .first = self.after + 1, .last = first - 1 };
            self.heads = segments.Heads.open(self.io, self.dir, first) orelse {
                if (isThere(self.io, self.dir, first)) return false; // it may not be read
                continue;
            };
            self.segment = first;
            return true;
        }
        return false;
    }

    /// Opens the segment behind the open one; false where there is none.
    fn proceed(self: *Reader) bool {
        var from = self.segment;
        while (from < std.math.maxInt(u64)) {
            const first = segments.next(self.io, self.dir, from + 1) orelse return false;
            from = first;
            const heads = segments.Heads.open(self.io, self.dir, first) orelse continue;
            // The oldest go first: as long as ours is there, no later one went.
            if (self.isDeleted() and first > self.after +| 1) self.gone = .{ .first = self.after + 1, .last = first - 1 };
            self.close();
            self.heads = heads;
            self.segment = first;
            return true;
        }
        return false;
    }

    fn isDeleted(self: *const Reader) bool {
        const stat = self.heads.?.file.stat(self.io) catch return true;
        return stat.nlink == 0;
    }

    fn nextInSegment(self: *Reader, max_bytes: u64) ?Run {
        const heads = &self.heads.?;
        var run: ?Run = null;
        var last = self.after;
        while (true) {
            const start = heads.offset;
            const head = heads.next() orelse return run;
            const wanted = head.number > last;
            if (run) |it| if (!wanted or it.bytes + head.recordBytes() > max_bytes) {
                heads.offset = start;
                return run;
            };
            if (!wanted) continue;
            if (!self.isWhole(start, head)) {
                if (run != null) return run;
                continue;
            }
            last = head.number;
            const before: Run = run orelse .{ .file = heads.file, .offset = start, .bytes = 0, .first = last, .last = last, .records = 0 };
            run = .{
                .file = before.file,
                .offset = before.offset,
                .bytes = before.bytes + head.recordBytes(),
                .first = before.first,
                .last = last,
                .records = before.records + 1,
            };
        }
    }

    /// Whether JSON and tensors are as they were written.
    fn isWhole(self: *const Reader, offset: u64, head: format.Head) bool {
        var buffer: [chunk_bytes]u8 = undefined;
        var crc: format.Crc = .init();
        var done: u64 = format.head_bytes;
        while (done < head.recordBytes()) {
            const chunk = readChunk(self.io, self.heads.?.file, offset + done, head.recordBytes() - done, &buffer) catch return false;
            crc.update(chunk);
            done += chunk.len;
        }
        return crc.final() == head.crc;
    }
};

/// Up to `left` bytes, and some.
fn readChunk(io: Io, file: Io.File, offset: u64, left: u64, buffer: []u8) error{ReadFailed}![]u8 {
    const into = buffer[0..@intCast(@min(left, buffer.len))];
    const count = file.readPositionalAll(io, into, offset) catch return error.ReadFailed;
    if (count == 0) return error.ReadFailed; // shorter than it was
    return into[0..count];
}

/// Where what has a higher number than `after` begins: the last segment that may hold the next number, or
/// the oldest of all.
fn startingSegment(io: Io, dir: Io.Dir, after: u64) ?u64 {
    var before: ?u64 = null;
    var oldest: ?u64 = null;
    var entries = dir.iterate();
    while (entries.next(io) catch return before orelse oldest) |entry| {
        const first = format.parseSegmentName(entry.name) orelse continue;
        if (oldest == null or first < oldest.?) oldest = first;
        if (first <= after +| 1 and (before == null or first > before.?)) before = first;
    }
    return before orelse oldest;
}

fn isThere(io: Io, dir: Io.Dir, first: u64) bool {
    dir.access(io, &format.segmentName(first), .{}) catch return false;
    return true;
}

test {
    _ = @import("capture_reader_test.zig");
}
