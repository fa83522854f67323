//! All that reads bytes from outside, for the fuzzer (tests/native/fuzz), which is built with this file
//! as its way in. The agent itself has no use for it.

pub const capture_rules = @import("capture_rules.zig");
pub const control_request = @import("control_request.zig");
pub const envelope = @import("envelope.zig");
pub const http = @import("http.zig");
pub const infer_request = @import("infer_request.zig");
pub const install = @import("install.zig");
pub const keys = @import("keys.zig");
pub const model_info = @import("model_info.zig");
pub const naming = @import("naming.zig");
pub const observing = @import("observing.zig");
pub const oci = @import("oci.zig");
pub const oip = @import("oip.zig");
pub const package = @import("package.zig");
pub const problem = @import("problem.zig");
pub const push_config = @import("push_config.zig");
pub const refusal = @import("refusal.zig");
pub const repeated_request = @import("repeated_request.zig");
pub const route = @import("route.zig");
pub const shared_memory = @import("shared_memory.zig");
pub const state = @import("state.zig");
pub const statement = @import("statement.zig");
pub const store = @import("store.zig");
pub const system_io = @import("system_io.zig");
pub const tar = @import("tar.zig");
pub const verify = @import("verify.zig");
