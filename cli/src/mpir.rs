//! The MPIR interface: how a parallel debugger that runs this program, or attaches to it, finds
//! the tasks of a job.
//!
//! A debugger looks up these names among the program's symbols, reads and writes them as it likes,
//! and stops the program in `MPIR_Breakpoint` to learn that the table is there.
#![allow(unsafe_code, non_upper_case_globals, non_snake_case)]

use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use flux_protocol::proctable::Row;

/// `MPIR_debug_state`: the tasks have been started.
const SPAWNED: c_int = 1;

/// `MPIR_PROCDESC`
#[repr(C)]
#[derive(Debug)]
struct Process {
    host_name: *const c_char,
    executable_name: *const c_char,
    pid: c_int,
}

// SAFETY: nobody else defines these names; the same goes for all that follow.
#[unsafe(no_mangle)]
#[used]
static MPIR_being_debugged: AtomicI32 = AtomicI32::new(0);
#[unsafe(no_mangle)]
#[used]
static MPIR_debug_state: AtomicI32 = AtomicI32::new(0);
#[unsafe(no_mangle)]
#[used]
static MPIR_proctable: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());
#[unsafe(no_mangle)]
#[used]
static MPIR_proctable_size: AtomicI32 = AtomicI32::new(0);
#[unsafe(no_mangle)]
#[used]
static MPIR_debug_abort_string: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
// That these are there is what counts.
#[unsafe(no_mangle)]
#[used]
static MPIR_i_am_starter: AtomicI32 = AtomicI32::new(1);
#[unsafe(no_mangle)]
#[used]
static MPIR_acquired_pre_main: AtomicI32 = AtomicI32::new(1);
#[unsafe(no_mangle)]
#[used]
static MPIR_force_to_main: AtomicI32 = AtomicI32::new(1);
#[unsafe(no_mangle)]
#[used]
static MPIR_partial_attach_ok: AtomicI32 = AtomicI32::new(1);
/// The job's id in decimal, for TotalView.
#[unsafe(no_mangle)]
#[used]
static totalview_jobid: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// A debugger has its breakpoint here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn MPIR_Breakpoint() {
    std::hint::black_box(MPIR_debug_state.load(Ordering::SeqCst));
}

/// Whether a debugger runs this program, or one is to think so.
pub(crate) fn is_debugged() -> bool {
    MPIR_being_debugged.load(Ordering::SeqCst) != 0
}

/// As if a debugger ran this program.
pub(crate) fn emulate() {
    MPIR_being_debugged.store(1, Ordering::SeqCst);
}

/// Tell a debugger which job it is.
pub(crate) fn name_job(id: u64) {
    totalview_jobid.store(lasting(&id.to_string()), Ordering::SeqCst);
}

/// Show a debugger the tasks, and give it the time to attach to them.
pub(crate) fn show(rows: &[Row]) {
    let processes: Vec<Process> = rows
        .iter()
        .map(|row| Process {
            host_name: lasting(&row.host),
            executable_name: lasting(&row.executable),
            pid: c_int::try_from(row.pid).unwrap_or_default(),
        })
        .collect();
    let size = c_int::try_from(processes.len()).unwrap_or(c_int::MAX);
    MPIR_proctable.store(Box::leak(processes.into_boxed_slice()).as_mut_ptr(), Ordering::SeqCst);
    MPIR_proctable_size.store(size, Ordering::SeqCst);
    MPIR_debug_state.store(SPAWNED, Ordering::SeqCst);
    MPIR_Breakpoint();
}

/// For as long as the program runs: a debugger may read it at any time.
fn lasting(text: &str) -> *mut c_char {
    CString::new(text).unwrap_or_default().into_raw()
}
