//! What `libpmi.so` and `libpmi2.so` share: the one connection that a process has to the server of
//! whoever launched it, and the way between C and Rust.
//!
//! MPIs load these libraries when they do not speak the wire protocol themselves. A process without
//! `PMI_FD` is not one of several: initialization fails, and the caller goes on by itself.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::os::fd::FromRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flux_pmi::Failed;
use flux_pmi::client::{Client, Launch};

pub type Job = Client<File>;

static JOB: Mutex<Option<Job>> = Mutex::new(None);

fn job() -> MutexGuard<'static, Option<Job>> {
    JOB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Run the body of a function of the interface, for the code that it returns to C.
pub fn answer(body: impl FnOnce() -> Result<(), Failed>) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(Failed(code))) => code,
        Err(_) => Failed::FAIL.0,
    }
}

/// Connect, as the environment says, and keep the connection when `then` succeeds.
pub fn init(then: impl FnOnce(&mut Job) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut job = job();
    if job.is_some() {
        return Err(Failed::INIT);
    }
    let launch = Launch::from_env(|name| std::env::var(name).ok()).map_err(|_| Failed::FAIL)?;
    // SAFETY: a question about a number; nothing is done to the descriptor.
    if unsafe { libc::fcntl(launch.fd, libc::F_GETFD) } == -1 {
        return Err(Failed::FAIL);
    }
    // SAFETY: it is open, and whoever set PMI_FD gave it to the PMI library of this process, which
    // this is: nothing else here uses or closes it.
    let file = unsafe { File::from_raw_fd(launch.fd) };
    let mut client = Client::new(launch, file)?;
    then(&mut client)?;
    *job = Some(client);
    Ok(())
}

pub fn is_initialized() -> bool {
    job().is_some()
}

/// Do something with the connection; without one that is [`Failed::INIT`].
pub fn with<T>(body: impl FnOnce(&mut Job) -> Result<T, Failed>) -> Result<T, Failed> {
    body(job().as_mut().ok_or(Failed::INIT)?)
}

/// The connection is closed, whatever the server says.
pub fn finalize() -> Result<(), Failed> {
    let job = job().take();
    job.ok_or(Failed::INIT)?.finalize()
}

/// End this process, and with it all others if the server can be told. `name` is that of the
/// function that C called.
pub fn abort(name: &str, exit_code: c_int, text: Option<&str>) -> ! {
    let told = catch_unwind(AssertUnwindSafe(|| {
        // Thread A may wait in a barrier, with the connection, when thread B gives up.
        let mut job = JOB.try_lock().ok();
        match job.as_deref_mut() {
            Some(Some(job)) if exit_code >= 0 => job.abort(exit_code, text).is_ok(),
            _ => false,
        }
    }));
    if !matches!(told, Ok(true)) {
        let job = JOB.try_lock().ok();
        let rank = match job.as_deref() {
            Some(Some(job)) => job.launch().rank.to_string(),
            _ => "-1".to_owned(),
        };
        eprintln!("{name}: ({rank}) {}", text.unwrap_or("NULL"));
    }
    std::process::exit(exit_code)
}

/// A string of C.
///
/// # Safety
/// `text` is null, or points to a string that ends with NUL and stays as it is during `'a`.
pub unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failed> {
    if text.is_null() {
        return Err(Failed::INVALID_ARG);
    }
    // SAFETY: it is not null; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failed::INVALID_ARG)
}

/// Answer with a number.
///
/// # Safety
/// `place` is null, or may be written to.
pub unsafe fn give(place: *mut c_int, value: c_int) -> Result<(), Failed> {
    if place.is_null() {
        return Err(Failed::INVALID_ARG);
    }
    // SAFETY: it is not null; the rest is the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// Answer with a string, in a buffer of `size` bytes; `short` is what to say of one that is too
/// short, in which nothing is written.
///
/// # Safety
/// `buffer` is null, or `size` bytes from there may be written to.
pub unsafe fn give_text(
    buffer: *mut c_char,
    size: c_int,
    text: &str,
    short: Failed,
) -> Result<(), Failed> {
    let size = room(buffer, size)?;
    if text.len() >= size {
        return Err(short);
    }
    // SAFETY: the buffer is not null, and has room for the text and a NUL by the caller's promise;
    // a buffer of the caller does not overlap what this library has allocated.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// Whether there is a buffer at all, and how large it is.
pub fn room<T>(buffer: *const T, size: c_int) -> Result<usize, Failed> {
    match usize::try_from(size) {
        Ok(size) if size > 0 && !buffer.is_null() => Ok(size),
        _ => Err(Failed::INVALID_ARG),
    }
}
