//! All models that are served, by name: what is current, what was wrong, and the switch to another.

const std = @import("std");
const log = @import("log.zig");
const Mutex = @import("mutex.zig").Mutex;
const naming = @import("naming.zig");
const Problem = @import("problem.zig").Problem;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const ServedModel = @import("served_model.zig").ServedModel;
const Settings = @import("settings.zig").Settings;
const states = @import("state.zig");
const State = states.State;
const Store = @import("store.zig").Store;

pub const Models = struct {
    store: Store,
    settings: *const Settings,
    /// Around `entries`; held for moments only.
    lock: Mutex = .{},
    /// Around a whole load, so that two never cross.
    loading: Mutex = .{},
    entries: [states.max_models]Entry = undefined,
    len: usize = 0,

    pub const Entry = struct {
        name_buffer: [64]u8,
        name_len: u8,
        current: ?*ServedModel,
        /// Taken out of service by request: that it does not run is as it should be.
        unloaded: bool = false,
        /// Why it is not the installed version that is served, or none; empty where all is well.
        trouble: Refusal,

        pub fn name(self: *const Entry) []const u8 {
            return self.name_buffer[0..self.name_len];
        }
    };

    /// Starts every installed model. One that cannot start keeps none of the others from it.
    pub fn loadAll(self: *Models, refusal: *Refusal) refusals.Error!void {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        var store = self.store;
        store.refusal = refusal;
        for (try store.modelNames(arena.allocator())) |name| {
            var trouble: Refusal = .{};
            const served = self.startInstalled(arena.allocator(), name, &trouble) catch |err| none: {
                if (err == error.OutOfMemory) _ = trouble.because(.worker, "out of memory", .{}) catch {};
                break :none null;
            };
            if (served == null and trouble.len == 0) continue; // nothing is installed under this name
            if (trouble.len > 0) log.line("{s}: {s}", .{ name, trouble.reason() });
            self.replace(name, served, trouble);
        }
    }

    /// The current version; where it does not start, the previous one, with `trouble` saying so.
    fn startInstalled(self: *Models, arena: std.mem.Allocator, name: []const u8, trouble: *Refusal) refusals.Error!?*ServedModel {
        var store = self.store;
        store.refusal = trouble;
        const state = try store.load(arena, name) orelse return null;
        const current = state.current orelse return null;
        return ServedModel.start(&store, self.settings, trouble, current) catch |err| {
            const previous = state.previous orelse return err;
            if (err == error.OutOfMemory) return err;
            var reason = trouble.*;
            const served = ServedModel.start(&store, self.settings, trouble, previous) catch {
                _ = trouble.because(.worker, "version {s}: {s}; nor does the previous one start", .{ current.version, reason.reason() }) catch {};
                return error.Refused;
            };
            _ = trouble.because(.worker, "version {s}: {s}; the previous one, {s}, is served", .{ current.version, reason.reason(), previous.version }) catch {};
            return served;
        };
    }

    /// Starts what state.json names now beside what runs, and switches to it once it is ready. Requests
    /// that began on the old one end on it. On failure the old one stays.
    pub fn load(self: *Models, name: []const u8, problem: *Problem) error{Problem}!*ServedModel {
        self.loading.lock();
        defer self.loading.unlock();
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        var refusal: Refusal = .{};
        var store = self.store;
        store.refusal = &refusal;
        const served = load: {
            const state = store.load(arena.allocator(), name) catch |err| break :load err;
            const current = (state orelse State{ .floor = "" }).current orelse
                return problem.because(.not_found, "no version of {s} is installed", .{name});
            break :load ServedModel.start(&store, self.settings, &refusal, current);
        } catch |err| return switch (err) {
            error.OutOfMemory => problem.because(.service_unavailable, "out of memory", .{}),
            error.Refused => problem.because(.internal_server_error, "{s}", .{refusal.reason()}),
        };
        served.acquire();
        log.line("{s}: version {s} is served, process {d}", .{ name, served.info.version, served.process.pid });
        self.replace(name, served, .{});
        return served;
    }

    fn replace(self: *Models, name: []const u8, served: ?*ServedModel, trouble: Refusal) void {
        self.lock.lock();
        const entry = self.find(name) orelse added: {
            std.debug.assert(self.len < self.entries.len and name.len <= 64); // states.names() and isName()
            const entry = &self.entries[self.len];
            entry.* = .{ .name_buffer = undefined, .name_len = @intCast(name.len), .current = null, .trouble = .{} };
            @memcpy(entry.name_buffer[0..name.len], name);
            self.len += 1;
            break :added entry;
        };
        const old = entry.current;
        entry.current = served;
        entry.unloaded = false;
        entry.trouble = trouble;
        self.lock.unlock();
        if (old) |it| it.release();
    }

    /// Takes a model out of service until it is loaded again. Requests that began on it end on it; the
    /// last of them stops the worker.
    pub fn unload(self: *Models, name: []const u8, problem: *Problem) error{Problem}!void {
        self.loading.lock(); // a load that is under way comes first, and does not bring it back after us
        defer self.loading.unlock();
        self.lock.lock();
        const entry = self.find(name) orelse {
            self.lock.unlock();
            return problem.because(.not_found, "no model {s}", .{printable(name)});
        };
        const old = entry.current;
        entry.current = null;
        entry.unloaded = true;
        entry.trouble = .{};
        entry.trouble.because(.worker, "unloaded", .{}) catch {};
        self.lock.unlock();
        if (old) |it| {
            log.line("{s}: version {s} is unloaded", .{ name, it.info.version });
            it.release();
        }
    }

    fn find(self: *Models, name: []const u8) ?*Entry {
        for (self.entries[0..self.len]) |*entry| {
            if (std.mem.eql(u8, entry.name(), name)) return entry;
        }
        return null;
    }

    /// The model as it is served now, to be released; `version` may be asked for.
    pub fn acquire(self: *Models, name: []const u8, version: ?[]const u8, problem: *Problem) error{Problem}!*ServedModel {
        self.lock.lock();
        defer self.lock.unlock();
        const entry = self.find(name) orelse return problem.because(.not_found, "no model {s}", .{printable(name)});
        const served = entry.current orelse
            return problem.because(.service_unavailable, "model {s} is not ready: {s}", .{ name, entry.trouble.reason() });
        if (version) |wanted| if (!std.mem.eql(u8, wanted, served.info.version)) {
            return problem.because(.not_found, "model {s} is served in version {s} only", .{ name, served.info.version });
        };
        served.acquire();
        return served;
    }

    /// A copy of each entry in turn, for lists; null behind the last.
    pub fn entryAt(self: *Models, index: usize, version_buffer: *[32]u8) ?struct { entry: Entry, version: []const u8 } {
        self.lock.lock();
        defer self.lock.unlock();
        if (index >= self.len) return null;
        const entry = self.entries[index];
        const version = if (entry.current) |served| served.info.version else "";
        @memcpy(version_buffer[0..version.len], version);
        return .{ .entry = entry, .version = version_buffer[0..version.len] };
    }

    /// The model at this place of the list as it is served, to be released, or null where none is;
    /// false behind the last.
    pub fn acquireAt(self: *Models, index: usize, found: *?*ServedModel) bool {
        self.lock.lock();
        defer self.lock.unlock();
        if (index >= self.len) return false;
        found.* = self.entries[index].current;
        if (found.*) |served| served.acquire();
        return true;
    }

    pub const Health = struct { version_buffer: [32]u8, version: []const u8, trouble: Refusal, deaths: u64, restarts: u64, psi: ?f64 };

    /// How a model does that is served, or that should be; null for any other. Not to be moved.
    pub fn health(self: *Models, name: []const u8, into: *Health) ?*Health {
        const served = held: {
            self.lock.lock();
            defer self.lock.unlock();
            const entry = self.find(name) orelse return null;
            into.* = .{ .version_buffer = undefined, .version = "", .trouble = entry.trouble, .deaths = 0, .restarts = 0, .psi = null };
            const served = entry.current orelse return into;
            served.acquire();
            break :held served;
        };
        defer served.release();
        const version = served.info.version;
        @memcpy(into.version_buffer[0..version.len], version);
        into.version = into.version_buffer[0..version.len];
        into.deaths = served.counters.deaths.load(.monotonic);
        into.restarts = served.counters.restarts.load(.monotonic);
        into.psi = served.drift.worst();
        return into;
    }

    /// Every model that is installed has a version that runs, unless it was unloaded.
    pub fn allReady(self: *Models) bool {
        self.lock.lock();
        defer self.lock.unlock();
        for (self.entries[0..self.len]) |entry| if (entry.current == null and !entry.unloaded) return false;
        return true;
    }

    pub fn count(self: *Models) struct { installed: usize, served: usize } {
        self.lock.lock();
        defer self.lock.unlock();
        var served: usize = 0;
        for (self.entries[0..self.len]) |*entry| served += @intFromBool(entry.current != null);
        return .{ .installed = self.len, .served = served };
    }

    pub fn stopAll(self: *Models) void {
        for (self.entries[0..self.len]) |entry| if (entry.current) |served| served.release();
        self.len = 0;
    }
};

fn printable(name: []const u8) []const u8 {
    return if (naming.isName(name)) name else "of such a name";
}
