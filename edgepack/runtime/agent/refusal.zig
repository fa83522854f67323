//! Why the agent refused something: which check failed, and one line of words about it.
//!
//! Every function that judges input takes a `*Refusal`, fills it in, and returns error.Refused.
//! `main.zig` turns it into `{"ok":false,"check":...,"reason":...}` and the exit code.

const std = @import("std");

/// The names that stand in the field "check". The numbers of exitCode() are those of
/// edgepack/errors.py, so that a script may treat agent and command line alike.
pub const Check = enum {
    usage,
    /// The file is no well-formed package.
    package,
    /// Bytes do not have the digest that they are called by.
    digest,
    /// No signature, or a bad one by a trusted key.
    signature,
    /// Signed, but by no key that this device trusts.
    key,
    /// The signed statement says something else than the package holds.
    statement,
    /// Lower than a version that ran here before, or the same version with other contents.
    version,
    /// Nothing in the package is for this device.
    target,
    /// The model computes other numbers here than the reference did.
    golden,
    /// The worker does not start, dies or hangs; or the running server cannot load it.
    worker,
    /// No room, or the file system failed.
    disk,
    /// The store itself is not in order, or nothing is there to roll back to.
    state,
    /// The place to pull from cannot be read.
    source,

    pub fn exitCode(check: Check) u8 {
        return switch (check) {
            .usage => 2,
            .package => 7,
            .digest, .signature, .key, .statement, .version => 8,
            .source => 9,
            .target, .golden, .worker, .disk, .state => 10,
        };
    }
};

/// What a judging function may answer with; memory is the only other thing that can run out.
pub const Error = error{ Refused, OutOfMemory };

pub const Refusal = struct {
    check: Check = .state,
    buffer: [512]u8 = undefined,
    len: usize = 0,

    /// `return refusal.because(.digest, "blob {s} ...", .{hex})`
    pub fn because(self: *Refusal, check: Check, comptime format: []const u8, args: anytype) error{Refused} {
        self.check = check;
        var writer: std.Io.Writer = .fixed(&self.buffer);
        writer.print(format, args) catch {}; // longer than the buffer: cut
        self.len = writer.end;
        // Words may quote a path from the command line; JSON may not carry it unless it is UTF-8.
        if (!std.unicode.utf8ValidateSlice(self.reason())) {
            for (self.buffer[0..self.len]) |*byte| {
                if (byte.* >= 0x80) byte.* = '?';
            }
        }
        return error.Refused;
    }

    pub fn reason(self: *const Refusal) []const u8 {
        return self.buffer[0..self.len];
    }
};

test "a reason that is too long is cut and one that is not UTF-8 is made so" {
    var refusal: Refusal = .{};
    const long: [600]u8 = @splat('x');
    try std.testing.expectEqual(error.Refused, refusal.because(.disk, "{s}", .{&long}));
    try std.testing.expectEqual(512, refusal.reason().len);
    try std.testing.expectEqual(error.Refused, refusal.because(.usage, "no file {s}", .{"\xff"}));
    try std.testing.expectEqualStrings("no file ?", refusal.reason());
}
