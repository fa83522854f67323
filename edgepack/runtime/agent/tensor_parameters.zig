//! The `parameters` of one input or output: that its data is not in the JSON, and where it is.
//!
//!     "binary_data_size": N      an input whose data follows the JSON, behind that of those before it
//!     "binary_data": BOOL        an output that is to follow the JSON of the answer, or not to
//!     "shared_memory_region": NAME, "shared_memory_byte_size": N, "shared_memory_offset": N
//!                                data in a region that was registered; the offset may be left out
//!
//! Parameters that are not known are passed by, as the protocol has it, but for "classification": an
//! output of another kind than the one that was asked for must not look like it.

const json_fields = @import("json_fields.zig");
const max_region_name = @import("shared_memory.zig").max_name_bytes;
const Problem = @import("problem.zig").Problem;
const Tokens = @import("json_tokens.zig").Tokens;

pub const TensorParameters = struct {
    binary_bytes: ?u64 = null,
    binary: ?bool = null,
    region_buffer: [max_region_name]u8 = undefined,
    region_len: ?usize = null,
    region_bytes: u64 = 0,
    region_offset: u64 = 0,

    /// The name of the region, where there is one.
    pub fn region(self: *const TensorParameters) ?[]const u8 {
        return self.region_buffer[0 .. self.region_len orelse return null];
    }

    const Field = enum { binary_data_size, binary_data, classification, shared_memory_region, shared_memory_byte_size, shared_memory_offset };

    pub fn read(self: *TensorParameters, tokens: *Tokens, problem: *Problem) json_fields.Error!void {
        var seen: json_fields.Seen(Field) = .{};
        var key_buffer: [json_fields.max_key_bytes]u8 = undefined;
        try tokens.expect(.object_begin);
        while (try tokens.key(&key_buffer)) |key| {
            switch (try seen.field(key, problem) orelse {
                try tokens.skip();
                continue;
            }) {
                .binary_data_size => self.binary_bytes = try json_fields.size(tokens, "binary_data_size", problem),
                .binary_data => self.binary = try json_fields.boolean(tokens, "binary_data", problem),
                .shared_memory_region => self.region_len = (try json_fields.string(tokens, "shared_memory_region", &self.region_buffer, problem)).len,
                .shared_memory_byte_size => self.region_bytes = try json_fields.size(tokens, "shared_memory_byte_size", problem),
                .shared_memory_offset => self.region_offset = try json_fields.size(tokens, "shared_memory_offset", problem),
                .classification => return problem.because(.bad_request, "classification is not supported", .{}),
            }
        }
        if (seen.has(.shared_memory_region) != seen.has(.shared_memory_byte_size)) {
            return problem.because(.bad_request, "shared_memory_region and shared_memory_byte_size need each other", .{});
        }
    }
};
