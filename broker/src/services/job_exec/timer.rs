//! Sleep for as long as was asked for, and no longer.
//!
//! The runtime's timers count whole milliseconds and round up, which doubles a run of one
//! millisecond; the kernel's don't. The only unsafe code of job-exec.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// From here on a millisecond more makes no difference, and no descriptor is spent.
const COARSE_FROM: Duration = Duration::from_millis(20);

pub(super) async fn sleep(duration: Duration) {
    let short = duration < COARSE_FROM;
    if !short || sleep_exactly(duration).await.is_err() {
        tokio::time::sleep(duration).await;
    }
}

async fn sleep_exactly(duration: Duration) -> io::Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    let span = TimeSpec::from_duration(duration);
    timer.set(Expiration::OneShot(span), TimerSetTimeFlags::empty())?;
    let _ = watch(timer.into())?.readable().await?;
    Ok(())
}

fn watch(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor as long as it lives; AsyncFd owns it and
    // deregisters it before dropping it.
    Ok(unsafe { AsyncFd::register(timer) }?)
}
