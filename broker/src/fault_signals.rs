//! Signals of faults that somebody has sent.
//!
//! Rust looks at SIGSEGV and SIGBUS for an overflown stack, the engine of the plugins at those and
//! at SIGFPE and SIGILL for a trap. Both take what they don't know for a fault that comes again when
//! they return, which a signal that was sent does not: the first would do nothing.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use nix::libc::{c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

const SIGNALS: [Signal; 4] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL];

/// Who handled them before.
static BEFORE: OnceLock<Vec<(Signal, SigHandler)>> = OnceLock::new();

/// Have the broker die of such a signal, as any program does. Call before the first plugin is
/// loaded: the engine asks whoever was there before it.
///
/// # Errors
///
/// Of the system call.
pub fn let_them_end_the_broker() -> nix::Result<()> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
    let mut before = Vec::with_capacity(SIGNALS.len());
    for signal in SIGNALS {
        // SAFETY: `handle` calls nothing that a signal handler may not.
        before.push((signal, unsafe { sigaction(signal, &action) }?.handler()));
    }
    let _ = BEFORE.set(before);
    Ok(())
}

extern "C" fn handle(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid one.
    let sent = unsafe { (*info).si_code } <= 0;
    let known =
        BEFORE.get().and_then(|all| all.iter().find(|(signal, _)| *signal as c_int == signum));
    let Some((signal, before)) = known else { return };
    match before {
        SigHandler::SigAction(before) if !sent => before(signum, info, context),
        SigHandler::Handler(before) if !sent => before(signum),
        // A fault comes again when this returns; what was sent has to be sent again.
        _ => {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: the default action.
            let _ = unsafe { sigaction(*signal, &default) };
            if sent {
                let _ = raise(*signal);
            }
        }
    }
}
