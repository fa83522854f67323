//! How pushing goes: the position of each model on the disk, and what metrics and status tell.
//!
//! ROOT/captures/NAME/pushed holds, in decimal, the number up to which the other side has confirmed. It is
//! replaced, and safe on the disk, after each batch; where it is missing or no number, all is pushed again.

const std = @import("std");
const Io = std.Io;
const Writer = Io.Writer;
const Counter = @import("counter.zig").Counter;
const Mutex = @import("mutex.zig").Mutex;
const replace = @import("replace.zig").replace;
const states = @import("state.zig");

const file_name = "pushed";

pub fn readPosition(io: Io, dir: Io.Dir) u64 {
    var buffer: [24]u8 = undefined;
    const text = dir.readFile(io, file_name, &buffer) catch return 0;
    return std.fmt.parseInt(u64, std.mem.trimEnd(u8, text, "\n"), 10) catch 0;
}

pub fn writePosition(io: Io, dir: Io.Dir, number: u64) !void {
    var buffer: [24]u8 = undefined;
    try replace(io, dir, file_name, std.fmt.bufPrint(&buffer, "{d}\n", .{number}) catch unreachable); // 20 digits
}

pub const Model = struct {
    name_buffer: [64]u8 = undefined,
    name_len: u8 = 0,
    /// Records that were confirmed since the agent started.
    records: u64 = 0,
    /// The last number that was confirmed, and the last there is.
    position: u64 = 0,
    last: u64 = 0,

    pub fn name(self: *const Model) []const u8 {
        return self.name_buffer[0..self.name_len];
    }
};

pub const State = struct {
    lock: Mutex = .{},
    /// Whether there is a push.json.
    configured: bool = false,
    url_buffer: [1024]u8 = undefined,
    url_len: usize = 0,
    /// Attempts in a row that came to nothing, and all.
    failures: u64 = 0,
    all_failures: u64 = 0,
    failure_buffer: [256]u8 = undefined,
    failure_len: usize = 0,
    models: [states.max_models]Model = undefined,
    len: usize = 0,

    pub fn configure(self: *State, url: ?[]const u8) void {
        self.lock.lock();
        defer self.lock.unlock();
        self.configured = url != null;
        const text = url orelse "";
        self.url_len = @min(text.len, self.url_buffer.len);
        @memcpy(self.url_buffer[0..self.url_len], text[0..self.url_len]);
        self.failures = 0;
        self.failure_len = 0;
    }

    /// True where the reason is another than that of the attempt before.
    pub fn fail(self: *State, reason: []const u8) bool {
        self.lock.lock();
        defer self.lock.unlock();
        self.failures += 1;
        self.all_failures += 1;
        const kept = reason[0..@min(reason.len, self.failure_buffer.len)];
        if (self.failures > 1 and std.mem.eql(u8, kept, self.failure_buffer[0..self.failure_len])) return false;
        @memcpy(self.failure_buffer[0..kept.len], kept);
        self.failure_len = kept.len;
        return true;
    }

    /// A batch was confirmed, or (0 records) nothing was to be pushed; true where attempts failed before.
    pub fn succeed(self: *State, model: []const u8, records: u64, position: u64, last: u64) bool {
        self.lock.lock();
        defer self.lock.unlock();
        const failed = records > 0 and self.failures > 0;
        if (records > 0) self.failures = 0;
        const it = for (self.models[0..self.len]) |*known| {
            if (std.mem.eql(u8, known.name(), model)) break known;
        } else fresh: {
            if (self.len == self.models.len) return failed;
            const it = &self.models[self.len];
            self.len += 1;
            it.* = .{ .name_len = @intCast(model.len) };
            @memcpy(it.name_buffer[0..model.len], model);
            break :fresh it;
        };
        it.records += records;
        it.position = position;
        it.last = @max(last, position);
        return failed;
    }

    pub fn writeMetrics(self: *State, out: *Writer) Writer.Error!void {
        self.lock.lock();
        defer self.lock.unlock();
        if (!self.configured) return;
        try out.writeAll("# HELP edgepack_capture_push_failures_total Attempts to push captures that came to nothing.\n# TYPE edgepack_capture_push_failures_total counter\n");
        try out.print("edgepack_capture_push_failures_total {d}\n", .{self.all_failures});
        inline for (.{
            .{ "edgepack_capture_pushed_total", "counter", "Captures that were pushed." },
            .{ "edgepack_capture_push_lag", "gauge", "Difference of the last capture's number and the last pushed one's." },
        }, 0..) |metric, index| {
            try out.writeAll("# HELP " ++ metric[0] ++ " " ++ metric[2] ++ "\n# TYPE " ++ metric[0] ++ " " ++ metric[1] ++ "\n");
            for (self.models[0..self.len]) |*model| {
                const value = if (index == 0) model.records else model.last - model.position;
                try out.print(metric[0] ++ "{{model=\"{s}\"}} {d}\n", .{ model.name(), value });
            }
        }
    }

    /// {"url":TEXT,"failures":N,"last_failure":TEXT|null,"models":[{"name":N,"pushed":N,"last":N},...]}, or null.
    pub fn writeStatus(self: *State, out: *Writer) Writer.Error!void {
        self.lock.lock();
        defer self.lock.unlock();
        if (!self.configured) return out.writeAll("null");
        try out.writeAll("{\"url\":");
        try std.json.Stringify.encodeJsonString(self.url_buffer[0..self.url_len], .{}, out);
        try out.print(",\"failures\":{d},\"last_failure\":", .{self.failures});
        if (self.failures > 0) {
            try std.json.Stringify.encodeJsonString(self.failure_buffer[0..self.failure_len], .{}, out);
        } else try out.writeAll("null");
        try out.writeAll(",\"models\":[");
        for (self.models[0..self.len], 0..) |*model, index| {
            try out.print("{s}{{\"name\":\"{s}\",\"pushed\":{d},\"last\":{d}}}", .{ if (index > 0) "," else "", model.name(), model.position, model.last });
        }
        try out.writeAll("]}");
    }
};

/// One for the process, as the counters of metrics.zig are.
pub var state: State = .{};

const testing = std.testing;

test "a position is read back, and what is none is the beginning" {
    const io = testing.io;
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    try testing.expectEqual(0, readPosition(io, tmp.dir));
    for ([_]u64{ 1, 1 << 40, std.math.maxInt(u64) }) |number| {
        try writePosition(io, tmp.dir, number);
        try testing.expectEqual(number, readPosition(io, tmp.dir));
    }
    for ([_][]const u8{ "", "x", "-1", "99999999999999999999", "1 2" }) |bad| {
        try tmp.dir.writeFile(io, .{ .sub_path = file_name, .data = bad });
        try testing.expectEqual(0, readPosition(io, tmp.dir));
    }
}

test "a failure is new once, and over with a success" {
    const own = try testing.allocator.create(State);
    defer testing.allocator.destroy(own);
    own.* = .{};
    own.configure("http://h");
    try testing.expect(own.fail("a"));
    try testing.expect(!own.fail("a"));
    try testing.expect(own.fail("b"));
    try testing.expect(!own.succeed("m", 0, 0, 9));
    try testing.expect(own.succeed("m", 2, 2, 9));
    try testing.expect(!own.succeed("m", 7, 9, 9));
    var buffer: [256]u8 = undefined;
    var out: Writer = .fixed(&buffer);
    try own.writeStatus(&out);
    try testing.expectEqualStrings("{\"url\":\"http://h\",\"failures\":0,\"last_failure\":null,\"models\":[{\"name\":\"m\",\"pushed\":9,\"last\":9}]}", out.buffered());
    try testing.expectEqual(3, own.all_failures);
}
