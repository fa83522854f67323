//! Makes wrong inputs of right ones. Every change follows from the random numbers alone, so that an
//! iteration's number brings back its input.

const std = @import("std");
const Random = std.Random;

pub const max_bytes = 96 << 10;

/// What lengths, counts and offsets break at.
const integers = [_][]const u8{
    "0",                    "1",                    "-1",                   "00",         "255",        "256",        "65535",      "65536",               "1073741824",
    "1073741825",           "2147483647",           "2147483648",           "4294967295", "4294967296", "8589934591", "8589934592", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "99999999999999999999", "1e309",      "1e-400",     "0.1",        "-0",
};

const bytes_of_interest = "\x00\x01\x7f\x80\xff\r\n\t \"\\{}[]:,;=/.-+_%0129aAfFeE";

/// Changes `buffer[0..len]` in one to a dozen places, and gives its new length.
pub fn mutate(random: Random, buffer: []u8, len: usize, seeds: []const []const u8, tokens: []const []const u8) usize {
    var it: Mutation = .{ .random = random, .buffer = buffer, .len = len };
    var changes: usize = 1;
    while (changes < 12 and random.boolean()) changes += 1;
    for (0..changes) |_| it.change(seeds, tokens);
    return it.len;
}

const Mutation = struct {
    random: Random,
    buffer: []u8,
    len: usize,

    fn change(self: *Mutation, seeds: []const []const u8, tokens: []const []const u8) void {
        const random = self.random;
        switch (random.uintLessThan(u8, 16)) {
            0, 1 => if (self.len > 0) {
                self.buffer[self.at()] ^= @as(u8, 1) << random.int(u3);
            },
            2 => if (self.len > 0) {
                self.buffer[self.at()] = random.int(u8);
            },
            3, 4 => if (self.len > 0) {
                self.buffer[self.at()] = bytes_of_interest[random.uintLessThan(usize, bytes_of_interest.len)];
            },
            5 => self.remove(self.range(64)),
            6 => if (self.len > 0) self.insert(self.at(), self.copyOf(self.range(64))),
            7, 8 => self.insert(self.place(), pick(random, tokens)),
            9, 10, 11 => self.replaceNumber(),
            12 => {
                const seed = pick(random, seeds);
                if (seed.len == 0) return;
                const from = random.uintLessThan(usize, seed.len);
                self.insert(self.place(), seed[from..@min(seed.len, from + 1 + random.uintLessThan(usize, 256))]);
            },
            13 => {
                var noise: [16]u8 = undefined;
                random.bytes(&noise);
                self.insert(self.place(), noise[0..random.uintLessThan(usize, noise.len)]);
            },
            14 => if (random.uintLessThan(u8, 4) == 0) {
                self.len = self.place();
            },
            // The same again and again: nesting, and lists.
            else => if (self.len > 0) {
                const piece = self.copyOf(self.range(24));
                var kept: [24]u8 = undefined;
                @memcpy(kept[0..piece.len], piece);
                const where = self.place();
                for (0..random.uintLessThan(usize, 200)) |_| self.insert(where, kept[0..piece.len]);
            },
        }
    }

    fn at(self: *Mutation) usize {
        return self.random.uintLessThan(usize, self.len);
    }

    fn place(self: *Mutation) usize {
        return self.random.uintAtMost(usize, self.len);
    }

    const Range = struct { start: usize, end: usize };

    fn range(self: *Mutation, longest: usize) Range {
        if (self.len == 0) return .{ .start = 0, .end = 0 };
        const start = self.at();
        return .{ .start = start, .end = @min(self.len, start + 1 + self.random.uintLessThan(usize, longest)) };
    }

    var scratch: [512]u8 = undefined;

    fn copyOf(self: *Mutation, what: Range) []const u8 {
        const count = what.end - what.start;
        @memcpy(scratch[0..count], self.buffer[what.start..what.end]);
        return scratch[0..count];
    }

    fn remove(self: *Mutation, what: Range) void {
        std.mem.copyForwards(u8, self.buffer[what.start..], self.buffer[what.end..self.len]);
        self.len -= what.end - what.start;
    }

    fn insert(self: *Mutation, where: usize, piece: []const u8) void {
        if (piece.len > self.buffer.len - self.len) return;
        std.mem.copyBackwards(u8, self.buffer[where + piece.len .. self.len + piece.len], self.buffer[where..self.len]);
        @memcpy(self.buffer[where..][0..piece.len], piece);
        self.len += piece.len;
    }

    /// A number in decimal digits becomes another; where there is none from a random place on, four
    /// bytes become a binary one.
    fn replaceNumber(self: *Mutation) void {
        if (self.len == 0) return;
        var start = self.at();
        while (start < self.len and !std.ascii.isDigit(self.buffer[start])) start += 1;
        if (start == self.len) return self.replaceBinary();
        var end = start;
        while (end < self.len and std.ascii.isDigit(self.buffer[end])) end += 1;
        var text: [24]u8 = undefined;
        const new = switch (self.random.uintLessThan(u8, 3)) {
            0 => pick(self.random, &integers),
            1 => std.fmt.bufPrint(&text, "{d}", .{self.random.uintLessThan(u32, 300)}) catch unreachable,
            else => near: {
                const old = std.fmt.parseInt(u63, self.buffer[start..end], 10) catch 0;
                const off = self.random.intRangeAtMost(i64, -2, 2);
                break :near std.fmt.bufPrint(&text, "{d}", .{@as(i65, old) + off}) catch unreachable;
            },
        };
        self.remove(.{ .start = start, .end = end });
        self.insert(start, new);
    }

    fn replaceBinary(self: *Mutation) void {
        if (self.len < 4) return;
        const values = [_]u32{ 0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff };
        const value = values[self.random.uintLessThan(usize, values.len)];
        std.mem.writeInt(u32, self.buffer[self.random.uintAtMost(usize, self.len - 4)..][0..4], value, .little);
    }
};

pub fn pick(random: Random, from: []const []const u8) []const u8 {
    return if (from.len == 0) "" else from[random.uintLessThan(usize, from.len)];
}
