//! Calls of libzmq that the zmq crate does not offer, and the registration of its descriptors.
//! The only unsafe code of the overlay.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zmq_sys::ZMQ_PAIR;

/// Sets an option whose value is an `int`.
pub(super) fn set_int(socket: &mut zmq::Socket, option: u32, value: i32) -> zmq::Result<()> {
    // SAFETY: the pointer is that of a live socket; libzmq copies the int that it is pointed to.
    let rc = unsafe {
        zmq_sys::zmq_setsockopt(
            socket.as_mut_ptr(),
            option.cast_signed(),
            (&raw const value).cast(),
            size_of::<i32>(),
        )
    };
    check(rc)
}

/// Starts a monitor that sends version 2 events to a PAIR socket at `endpoint`.
pub(super) fn start_monitor(socket: &mut zmq::Socket, endpoint: &str) -> zmq::Result<()> {
    let endpoint = CString::new(endpoint).map_err(|_| zmq::Error::EINVAL)?;
    let (events, version) = (u64::from(zmq_sys::ZMQ_EVENT_ALL), 2);
    // SAFETY: the pointer is that of a live socket; `endpoint` is NUL-terminated.
    let rc = unsafe {
        zmq_sys::zmq_socket_monitor_versioned(
            socket.as_mut_ptr(),
            endpoint.as_ptr(),
            events,
            version,
            ZMQ_PAIR.cast_signed(),
        )
    };
    check(rc)
}

/// Ends the monitor of a socket, if it has one.
pub(super) fn stop_monitor(socket: &mut zmq::Socket) {
    // SAFETY: the pointer is that of a live socket; a null endpoint is how a monitor is ended.
    unsafe {
        zmq_sys::zmq_socket_monitor(socket.as_mut_ptr(), std::ptr::null(), 0);
    }
}

/// Registers the descriptor of a socket with the runtime of the calling thread.
pub(super) fn watch(socket: zmq::Socket) -> io::Result<AsyncFd<zmq::Socket>> {
    // SAFETY: a socket has one and the same descriptor as long as it lives; AsyncFd owns the
    // socket, lends it out only by reference, and deregisters the descriptor before dropping it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn check(rc: i32) -> zmq::Result<()> {
    if rc == 0 {
        return Ok(());
    }
    // SAFETY: reads a thread-local variable.
    Err(zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() }))
}
