//! libzmq 4.3.5 built from source with CURVE (libsodium), linked statically.
//!
//! The zmq crate's own `-sys` crate builds libzmq without libsodium, so that brokers could not
//! encrypt. The workspace puts this crate in its place (`[patch.crates-io]`); it has the same
//! names, as far as the zmq crate uses them, and two safe additions at the end of this file.

#![allow(unsafe_code, non_camel_case_types)]

mod constants;
pub mod errno;
mod functions;

pub use constants::*;
pub use functions::*;

// Nothing here calls libsodium, libzmq does: keep the linker from leaving it out.
use libsodium_sys as _;

pub type RawFd = std::os::fd::RawFd;

/// The last error of the calling thread, as a number that the zmq crate has a name for.
///
/// # Safety
///
/// Always safe to call; `unsafe` only because the function of C that it stands for is.
pub unsafe fn zmq_errno() -> libc::c_int {
    mod real {
        unsafe extern "C" {
            pub(super) fn zmq_errno() -> libc::c_int;
        }
    }
    // SAFETY: reads a thread-local variable.
    errno::known_to_the_zmq_crate(unsafe { real::zmq_errno() })
}

/// Length of a CURVE key as Z85 text.
pub const CURVE_KEY_TEXT_LEN: usize = 40;

/// The public key that belongs to a secret key, both as Z85 text.
///
/// None if `secret` is not the Z85 text of 32 bytes.
pub fn curve_public(secret: &str) -> Option<String> {
    if secret.len() != CURVE_KEY_TEXT_LEN || secret.contains('\0') {
        return None;
    }
    let secret = std::ffi::CString::new(secret).ok()?;
    let mut public = [0u8; CURVE_KEY_TEXT_LEN + 1];
    // SAFETY: `secret` is NUL-terminated text of 40 bytes, `public` has room for 40 and a NUL.
    let rc = unsafe { zmq_curve_public(public.as_mut_ptr().cast(), secret.as_ptr()) };
    if rc != 0 {
        return None;
    }
    std::ffi::CStr::from_bytes_until_nul(&public).ok()?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_4_3_5_and_has_curve_and_ipc() {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: three valid pointers; NUL-terminated capability names.
        unsafe {
            zmq_version(&mut major, &mut minor, &mut patch);
            assert_eq!(zmq_has(c"curve".as_ptr()), 1);
            assert_eq!(zmq_has(c"ipc".as_ptr()), 1);
        }
        assert_eq!((major, minor, patch), (4, 3, 5));
    }

    #[test]
    fn public_key_is_derived_from_the_secret_key() {
        // The server key pair of zmq_curve(7).
        assert_eq!(
            curve_public("JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6").as_deref(),
            Some("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7")
        );
        assert_eq!(curve_public("too short"), None);
    }
}
