//! Linux errno numbers that refusals use.

/// Operation not permitted.
pub const EPERM: u32 = 1;
/// No such file, key or job.
pub const ENOENT: u32 = 2;
/// Resource temporarily unavailable.
pub const EAGAIN: u32 = 11;
/// Already there.
pub const EEXIST: u32 = 17;
/// Invalid argument.
pub const EINVAL: u32 = 22;
/// Function not implemented.
pub const ENOSYS: u32 = 38;
/// Protocol error: a payload that cannot be decoded.
pub const EPROTO: u32 = 71;
/// Value too large: a request that can never fit.
pub const EOVERFLOW: u32 = 75;
