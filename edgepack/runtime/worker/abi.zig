//! edgepack.h, and of plan.h what the worker needs, as Zig sees them, and the layout of the memory that worker and agent share.
//! Every declaration here mirrors one there; abi_version changes with EP_ABI_VERSION.

const std = @import("std");

pub const abi_version: u32 = 1;
pub const alignment: usize = 64;

pub const status_weights: i32 = -3;
pub const status_memory: i32 = -2;
pub const status_argument: i32 = -1;

pub const max_threads: u32 = 64;

/// A failed system call is answered as this minus its errno, so that no ep_status is mistaken for one.
pub const status_errno_base: i32 = -100;

pub const Tensor = extern struct {
    name: [*:0]const u8,
    dtype: i32,
    ndim: i32,
    shape: [*]const i64,
    nbytes: usize,

    /// NumPy's name, by ep_dtype; null for a number that this version of the header does not know.
    pub fn dtypeName(tensor: *const Tensor) ?[]const u8 {
        const names = [_][]const u8{
            "bool",   "int8",  "uint8",  "int16",   "uint16",  "int32",
            "uint32", "int64", "uint64", "float16", "float32", "float64",
        };
        const index = std.math.cast(usize, tensor.dtype) orelse return null;
        return if (index < names.len) names[index] else null;
    }
};

pub const Model = opaque {};
pub const Session = opaque {};

pub extern fn ep_model_get() *const Model;
pub extern fn ep_abi_version(model: *const Model) u32;
pub extern fn ep_num_inputs(model: *const Model) usize;
pub extern fn ep_num_outputs(model: *const Model) usize;
pub extern fn ep_input(model: *const Model, index: usize) ?*const Tensor;
pub extern fn ep_output(model: *const Model, index: usize) ?*const Tensor;
pub extern fn ep_weights_bytes(model: *const Model) usize;
pub extern fn ep_arena_bytes(model: *const Model) usize;
pub extern fn ep_memory_bytes(model: *const Model) usize;
pub extern fn ep_session_init(
    session: *?*Session,
    model: *const Model,
    memory: [*]u8,
    memory_bytes: usize,
    weights: [*]const u8,
    weights_bytes: usize,
) c_int;
pub extern fn ep_run(session: *Session, inputs: [*]const [*]const u8, outputs: [*]const [*]u8) c_int;
pub extern fn ep_session_set_threads(session: *Session, threads: u32) c_int;
pub extern fn ep_session_close(session: *Session) void;
pub extern fn ep_strerror(status: c_int) [*:0]const u8;

// Of plan.h, for the worker alone.
pub extern fn ep_cores(model: *const Model) u32;
pub extern fn ep_num_calls(model: *const Model) u32;
pub extern fn ep_peak_flops(model: *const Model) u64;
pub extern fn ep_run_peak(model: *const Model) c_int;
pub extern fn ep_run_observed(
    session: *Session,
    inputs: [*]const [*]const u8,
    outputs: [*]const [*]u8,
    ended: *const fn (context: *anyopaque) callconv(.c) void,
    context: *anyopaque,
) c_int;

/// Where the tensors lie in the shared memory: inputs in order, then outputs in order, each at the
/// next multiple of `alignment`, the whole rounded up to a page of 4096 bytes.
pub fn sharedBytes(model: *const Model) usize {
    var end: usize = 0;
    for (0..ep_num_inputs(model)) |index| end = afterTensor(end, ep_input(model, index).?);
    for (0..ep_num_outputs(model)) |index| end = afterTensor(end, ep_output(model, index).?);
    return std.mem.alignForward(usize, end, 4096);
}

pub fn afterTensor(start: usize, tensor: *const Tensor) usize {
    return std.mem.alignForward(usize, start, alignment) + tensor.nbytes;
}
