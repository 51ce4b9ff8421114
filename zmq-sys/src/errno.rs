//! Error numbers as libzmq reports them.

pub use libc::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EBUSY, ECONNREFUSED, EFAULT, EHOSTUNREACH,
    EINPROGRESS, EINTR, EINVAL, EMFILE, EMSGSIZE, ENAMETOOLONG, ENETDOWN, ENOBUFS, ENODEV, ENOENT,
    ENOMEM, ENOTCONN, ENOTSOCK, ENOTSUP, EPROTO, EPROTONOSUPPORT,
};

/// libzmq's own numbers start here, far from those of any system.
const BASE: i32 = 156_384_712;

pub const EFSM: i32 = BASE + 51;
pub const ENOCOMPATPROTO: i32 = BASE + 52;
pub const ETERM: i32 = BASE + 53;
pub const EMTHREAD: i32 = BASE + 54;

// Stand-ins on systems that lack the number. Linux lacks none, but the zmq crate names them.
pub const ENOTSUP_ALT: i32 = BASE + 1;
pub const EPROTONOSUPPORT_ALT: i32 = BASE + 2;
pub const ENOBUFS_ALT: i32 = BASE + 3;
pub const ENETDOWN_ALT: i32 = BASE + 4;
pub const EADDRINUSE_ALT: i32 = BASE + 5;
pub const EADDRNOTAVAIL_ALT: i32 = BASE + 6;
pub const ECONNREFUSED_ALT: i32 = BASE + 7;
pub const EINPROGRESS_ALT: i32 = BASE + 8;
pub const ENOTSOCK_ALT: i32 = BASE + 9;
pub const EMSGSIZE_ALT: i32 = BASE + 10;

/// The number in the zmq crate's vocabulary that says most nearly the same.
///
/// The zmq crate panics on a number it has no name for, and libzmq passes on whatever the system
/// answered: binding `ipc:///etc/passwd/x` says ENOTDIR. A broker must survive that.
pub(crate) const fn known_to_the_zmq_crate(errno: i32) -> i32 {
    match errno {
        EACCES | EADDRINUSE | EADDRNOTAVAIL | EAGAIN | EBUSY | ECONNREFUSED | EFAULT
        | EHOSTUNREACH | EINPROGRESS | EINTR | EINVAL | EMFILE | EMSGSIZE | ENAMETOOLONG
        | ENETDOWN | ENOBUFS | ENODEV | ENOENT | ENOMEM | ENOTCONN | ENOTSOCK | ENOTSUP
        | EPROTO | EPROTONOSUPPORT | EFSM | ENOCOMPATPROTO | ETERM | EMTHREAD => errno,
        libc::EPERM | libc::EROFS => EACCES,
        libc::ENOTDIR | libc::ELOOP | libc::ENXIO => ENOENT,
        libc::ENFILE => EMFILE,
        libc::ENOSPC | libc::EDQUOT => ENOBUFS,
        libc::EEXIST | libc::EISDIR => EADDRINUSE,
        libc::EAFNOSUPPORT => EPROTONOSUPPORT,
        libc::ENETUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT => EHOSTUNREACH,
        libc::ECONNABORTED | libc::ECONNRESET | libc::ENETRESET | libc::EPIPE => ENOTCONN,
        _ => EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_foreign_to_the_zmq_crate_are_translated() {
        assert_eq!(known_to_the_zmq_crate(libc::ENOTDIR), ENOENT);
        assert_eq!(known_to_the_zmq_crate(libc::EROFS), EACCES);
        assert_eq!(known_to_the_zmq_crate(9999), EINVAL);
        assert_eq!(known_to_the_zmq_crate(EAGAIN), EAGAIN);
        assert_eq!(known_to_the_zmq_crate(ETERM), ETERM);
    }
}
