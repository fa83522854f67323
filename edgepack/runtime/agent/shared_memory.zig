//! The system shared memory extension: regions of POSIX shared memory that clients register, so that
//! tensors need not pass through a socket.
//!
//! A region is read and written with pread and pwrite, not mapped. Its owner can shrink the file at any
//! time, and touching a mapping behind its new end is a SIGBUS that would end the agent with all models
//! of all clients; pread answers with fewer bytes. Nor can an input change between its check and its
//! use, because both are of the copy.
//!
//! The agent may open more than its clients may. So that nobody reads or writes another's memory by way
//! of it, a file must belong to the user at the other end of the Unix socket, as the kernel gives it
//! (SO_PEERCRED), and a region exists for that user only: another has names of its own. Root, who may
//! do all that anyway, may register everybody's.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const max_io_bytes = @import("model_info.zig").max_io_bytes;
const Mutex = @import("mutex.zig").Mutex;
const Problem = @import("problem.zig").Problem;

pub const max_name_bytes = 64;
/// With the slash that POSIX has before it.
pub const max_key_bytes = 128;
const max_regions = 64;
const max_regions_of_a_user = 16;
/// Stands for every user that has no number in our user namespace: two of them would look like one.
const overflow_user = 65534;

pub const Region = struct {
    name_buffer: [max_name_bytes]u8 = undefined,
    name_len: usize,
    key_buffer: [max_key_bytes]u8 = undefined,
    key_len: usize,
    user: linux.uid_t,
    fd: linux.fd_t,
    /// Where in the file it begins.
    offset: u64,
    bytes: u64,
    /// The list's own, until it is unregistered, and one for each request that uses it.
    references: u32 = 1,
    listed: bool = true,

    pub fn name(self: *const Region) []const u8 {
        return self.name_buffer[0..self.name_len];
    }

    pub fn key(self: *const Region) []const u8 {
        return self.key_buffer[0..self.key_len];
    }

    /// Copies `into.len` bytes out, from `offset` within the region on.
    pub fn read(self: *const Region, offset: u64, into: []u8, problem: *Problem) error{Problem}!void {
        try self.checkRange(offset, into.len, problem);
        var done: usize = 0;
        while (done < into.len) {
            const count = linux.pread(self.fd, into.ptr + done, into.len - done, @intCast(self.offset + offset + done));
            switch (linux.errno(count)) {
                .SUCCESS => if (count == 0) return self.refuseShrunk(problem),
                .INTR => continue,
                else => |cause| return problem.because(.bad_request, "region {s} cannot be read: {t}", .{ self.name(), cause }),
            }
            done += count;
        }
    }

    /// Copies `from` in. The file is not made longer: a client that shrinks it between the check and the
    /// write gets back at most what it had registered.
    pub fn write(self: *const Region, offset: u64, from: []const u8, problem: *Problem) error{Problem}!void {
        try self.checkRange(offset, from.len, problem);
        if (sizeOf(self.fd) < self.offset + offset + from.len) return self.refuseShrunk(problem);
        var done: usize = 0;
        while (done < from.len) {
            const count = linux.pwrite(self.fd, from.ptr + done, from.len - done, @intCast(self.offset + offset + done));
            switch (linux.errno(count)) {
                .SUCCESS => done += count,
                .INTR => {},
                else => |cause| return problem.because(.bad_request, "region {s} cannot be written: {t}", .{ self.name(), cause }),
            }
        }
    }

    /// Before a run is spent on it, too: what is asked for is within the region.
    pub fn checkRange(self: *const Region, offset: u64, bytes: u64, problem: *Problem) error{Problem}!void {
        if (bytes <= self.bytes and offset <= self.bytes - bytes) return;
        return problem.because(.bad_request, "{d} bytes at {d} are not within the {d} bytes of region {s}", .{ bytes, offset, self.bytes, self.name() });
    }

    fn refuseShrunk(self: *const Region, problem: *Problem) error{Problem} {
        return problem.because(.bad_request, "region {s} is shorter than when it was registered", .{self.name()});
    }
};

pub const Regions = struct {
    /// Around `slots`; held for moments only.
    lock: Mutex = .{},
    slots: [max_regions]?Region = @splat(null),

    pub const Wish = struct { name: []const u8, key: []const u8, offset: u64, bytes: u64 };

    pub fn register(self: *Regions, user: linux.uid_t, wish: Wish, problem: *Problem) error{Problem}!void {
        if (!isWord(wish.name, max_name_bytes)) return problem.because(.bad_request, "a region's name is 1 to {d} letters, digits, '.', '_' and '-'", .{max_name_bytes});
        if (wish.bytes == 0 or wish.bytes > max_io_bytes) return problem.because(.bad_request, "a region has 1 to {d} bytes", .{max_io_bytes});
        const fd = try open(user, wish, problem);
        errdefer _ = linux.close(fd);
        var region: Region = .{ .name_len = wish.name.len, .key_len = wish.key.len, .user = user, .fd = fd, .offset = wish.offset, .bytes = wish.bytes };
        @memcpy(region.name_buffer[0..wish.name.len], wish.name);
        @memcpy(region.key_buffer[0..wish.key.len], wish.key);
        self.lock.lock();
        defer self.lock.unlock();
        var owned: usize = 0;
        var free: ?*?Region = null;
        for (&self.slots) |*slot| {
            const taken = &(slot.* orelse {
                free = slot;
                continue;
            });
            if (taken.user != user) continue;
            owned += 1;
            if (taken.listed and std.mem.eql(u8, taken.name(), wish.name)) return problem.because(.bad_request, "region {s} is registered already", .{wish.name});
        }
        const slot = free orelse return problem.because(.service_unavailable, "{d} regions are registered, and no more can be", .{max_regions});
        if (owned >= max_regions_of_a_user) return problem.because(.service_unavailable, "user {d} has registered {d} regions, and no more can be", .{ user, owned });
        slot.* = region;
    }

    /// A region of this user's, to be released.
    pub fn acquire(self: *Regions, user: linux.uid_t, name: []const u8, problem: *Problem) error{Problem}!*Region {
        self.lock.lock();
        defer self.lock.unlock();
        for (&self.slots) |*slot| if (slot.*) |*region| {
            if (!isOf(region, user, name)) continue;
            region.references += 1;
            return region;
        };
        if (!isWord(name, max_name_bytes)) return problem.because(.not_found, "no region of such a name is registered", .{});
        return problem.because(.not_found, "no region {s} is registered", .{name});
    }

    pub fn release(self: *Regions, region: *Region) void {
        self.lock.lock();
        defer self.lock.unlock();
        self.drop(region);
    }

    /// One of this user's, or without a name all; one that is not there is gone already. Requests that
    /// use it still end.
    pub fn unregister(self: *Regions, user: linux.uid_t, name: ?[]const u8) void {
        self.lock.lock();
        defer self.lock.unlock();
        for (&self.slots) |*slot| if (slot.*) |*region| {
            if (!isOf(region, user, name)) continue;
            region.listed = false;
            self.drop(region);
        };
    }

    fn drop(self: *Regions, region: *Region) void {
        region.references -= 1;
        if (region.references > 0) return;
        _ = linux.close(region.fd);
        for (&self.slots) |*slot| {
            if (slot.*) |*it| if (it == region) {
                slot.* = null;
                return;
            };
        }
    }

    /// A copy of the next region of this user's from `index` on, which moves behind it.
    pub fn next(self: *Regions, index: *usize, user: linux.uid_t, name: ?[]const u8) ?Region {
        self.lock.lock();
        defer self.lock.unlock();
        while (index.* < self.slots.len) {
            defer index.* += 1;
            if (self.slots[index.*]) |*region| if (isOf(region, user, name)) return region.*;
        }
        return null;
    }

    fn isOf(region: *const Region, user: linux.uid_t, name: ?[]const u8) bool {
        return region.listed and region.user == user and (name == null or std.mem.eql(u8, name.?, region.name()));
    }
};

/// The regions as one client may use them.
pub const Access = struct {
    regions: *Regions,
    user: linux.uid_t,

    /// To be released.
    pub fn acquire(self: Access, name: []const u8, problem: *Problem) error{Problem}!*Region {
        return self.regions.acquire(self.user, name, problem);
    }

    pub fn release(self: Access, region: *Region) void {
        self.regions.release(region);
    }
};

/// Over TCP nobody knows whose process the client is.
pub fn allowed(access: ?Access, problem: *Problem) error{Problem}!Access {
    return access orelse problem.because(.forbidden, "shared memory is for clients of the Unix socket only", .{});
}

/// Opens /dev/shm/KEY, which must be a regular file of this user's and long enough.
fn open(user: linux.uid_t, wish: Regions.Wish, problem: *Problem) error{Problem}!linux.fd_t {
    if (user == overflow_user) return problem.because(.forbidden, "the client's user has no number here (it is in another user namespace)", .{});
    const file = if (std.mem.startsWith(u8, wish.key, "/")) wish.key[1..] else wish.key;
    if (wish.key.len > max_key_bytes or !isWord(file, max_key_bytes)) {
        return problem.because(.bad_request, "a key is the name of POSIX shared memory: '/' and letters, digits, '.', '_' and '-', no '.' first", .{});
    }
    var path_buffer: [max_key_bytes + 16]u8 = undefined;
    const path = std.fmt.bufPrintSentinel(&path_buffer, "/dev/shm/{s}", .{file}, 0) catch unreachable; // checked above
    // NONBLOCK: neither a FIFO nor a lease that somebody holds on the file may make us wait.
    const opened = linux.open(path, .{ .ACCMODE = .RDWR, .NOFOLLOW = true, .NONBLOCK = true, .NOCTTY = true, .CLOEXEC = true }, 0);
    switch (linux.errno(opened)) {
        .SUCCESS => {},
        .NOENT => return problem.because(.bad_request, "there is no shared memory {s}", .{wish.key}),
        .ACCES => return problem.because(.forbidden, "the agent's user may not read and write shared memory {s}; its mode must let it", .{wish.key}),
        .LOOP => return problem.because(.forbidden, "shared memory {s} is a symbolic link", .{wish.key}),
        else => |cause| return problem.because(.bad_request, "shared memory {s} cannot be opened: {t}", .{ wish.key, cause }),
    }
    const fd: linux.fd_t = @intCast(opened);
    errdefer _ = linux.close(fd);
    const stat = statOf(fd) orelse return problem.because(.bad_request, "shared memory {s} cannot be looked at", .{wish.key});
    if (!linux.S.ISREG(stat.mode)) return problem.because(.forbidden, "{s} is not shared memory", .{wish.key});
    if (stat.uid != user and user != 0) return problem.because(.forbidden, "shared memory {s} belongs to another user", .{wish.key});
    if (stat.size < wish.bytes or stat.size - wish.bytes < wish.offset) {
        return problem.because(.bad_request, "shared memory {s} has {d} bytes, fewer than {d} at {d}", .{ wish.key, stat.size, wish.bytes, wish.offset });
    }
    return fd;
}

fn statOf(fd: linux.fd_t) ?linux.Statx {
    var stat: linux.Statx = undefined;
    const wanted: linux.STATX = .{ .TYPE = true, .UID = true, .SIZE = true };
    const result = linux.statx(fd, "", linux.AT.EMPTY_PATH, wanted, &stat);
    if (linux.errno(result) != .SUCCESS or !stat.mask.TYPE or !stat.mask.UID or !stat.mask.SIZE) return null;
    return stat;
}

/// The same without the rest, which takes a third of the time; 0 where it cannot be told.
fn sizeOf(fd: linux.fd_t) u64 {
    if (@sizeOf(usize) == 8) {
        const end: usize = @bitCast(linux.lseek(fd, 0, linux.SEEK.END));
        return if (linux.errno(end) == .SUCCESS) end else 0;
    }
    var end: i64 = 0;
    return if (linux.errno(linux.llseek(fd, 0, &end, linux.SEEK.END)) == .SUCCESS) @intCast(end) else 0;
}

/// What is safe in a path, in JSON and in a message alike.
fn isWord(text: []const u8, max_bytes: usize) bool {
    if (text.len == 0 or text.len > max_bytes or text[0] == '.') return false;
    for (text) |byte| switch (byte) {
        'a'...'z', 'A'...'Z', '0'...'9', '.', '_', '-' => {},
        else => return false,
    };
    return true;
}

/// `[{"name":N,"key":K,"offset":N,"byte_size":N}, ...]`
pub fn writeStatus(writer: *Io.Writer, access: Access, name: ?[]const u8) Io.Writer.Error!void {
    try writer.writeByte('[');
    var index: usize = 0;
    var separator: []const u8 = "";
    while (access.regions.next(&index, access.user, name)) |region| {
        try writer.print("{s}{{\"name\":\"{s}\",\"key\":\"{s}\",\"offset\":{d},\"byte_size\":{d}}}", .{ separator, region.name(), region.key(), region.offset, region.bytes });
        separator = ",";
    }
    try writer.writeByte(']');
}

test {
    _ = @import("shared_memory_test.zig");
}
