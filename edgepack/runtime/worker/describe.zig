//! `worker describe`: one JSON object on stdout, for whoever wants to know what was linked in.

const std = @import("std");
const abi = @import("abi.zig");
const terminal = @import("terminal.zig");

pub fn run() u8 {
    const model = abi.ep_model_get();
    var out: Output = .{};
    out.text("{\"abi\":");
    out.number(abi.ep_abi_version(model));
    out.text(",\"inputs\":");
    out.tensors(model, abi.ep_num_inputs, abi.ep_input);
    out.text(",\"outputs\":");
    out.tensors(model, abi.ep_num_outputs, abi.ep_output);
    out.text(",\"weights_bytes\":");
    out.number(abi.ep_weights_bytes(model));
    out.text(",\"arena_bytes\":");
    out.number(abi.ep_arena_bytes(model));
    out.text(",\"memory_bytes\":");
    out.number(abi.ep_memory_bytes(model));
    out.text("}\n");
    out.flush();
    return if (out.failed) 1 else 0;
}

/// A small buffer in front of stdout; remembers whether a write failed.
const Output = struct {
    buffer: [1024]u8 = undefined,
    filled: usize = 0,
    failed: bool = false,

    fn text(out: *Output, bytes: []const u8) void {
        for (bytes) |byte| {
            if (out.filled == out.buffer.len) out.flush();
            out.buffer[out.filled] = byte;
            out.filled += 1;
        }
    }

    fn flush(out: *Output) void {
        if (!terminal.writeAll(1, out.buffer[0..out.filled])) out.failed = true;
        out.filled = 0;
    }

    fn number(out: *Output, value: u64) void {
        var digits: [20]u8 = undefined;
        var start: usize = digits.len;
        var rest = value;
        while (true) {
            start -= 1;
            digits[start] = '0' + @as(u8, @intCast(rest % 10));
            rest /= 10;
            if (rest == 0) break;
        }
        out.text(digits[start..]);
    }

    /// A JSON string; everything but quotes, backslashes and control characters goes through as UTF-8.
    fn string(out: *Output, bytes: []const u8) void {
        const hex = "0123456789abcdef";
        out.text("\"");
        for (bytes) |byte| switch (byte) {
            '"', '\\' => out.text(&.{ '\\', byte }),
            0...0x1f => out.text(&.{ '\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15] }),
            else => out.text(&.{byte}),
        };
        out.text("\"");
    }

    fn tensors(
        out: *Output,
        model: *const abi.Model,
        count: *const fn (*const abi.Model) callconv(.c) usize,
        get: *const fn (*const abi.Model, usize) callconv(.c) ?*const abi.Tensor,
    ) void {
        out.text("[");
        for (0..count(model)) |index| {
            if (index > 0) out.text(",");
            out.tensor(get(model, index).?);
        }
        out.text("]");
    }

    fn tensor(out: *Output, described: *const abi.Tensor) void {
        out.text("{\"name\":");
        out.string(std.mem.span(described.name));
        out.text(",\"dtype\":");
        out.string(described.dtypeName() orelse "unknown");
        out.text(",\"shape\":[");
        for (described.shape[0..@intCast(described.ndim)], 0..) |extent, axis| {
            if (axis > 0) out.text(",");
            out.number(@intCast(extent));
        }
        out.text("]}");
    }
};
