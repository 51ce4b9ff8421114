//! `libpmi2.so`: the PMI-2 interface for C, as far as MPIs need it to find each other, over the
//! PMI-1 wire protocol of RFC 13.
//!
//! MPICH for Slurm asks for this library by name, and Cray's MPI knows no other.
#![allow(unsafe_code, non_snake_case, non_upper_case_globals)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::AtomicPtr;
use std::time::Duration;

use flux_libpmi::{Job, answer, give, give_text, room, text, with};
use flux_pmi::Failed;

/// Keys that the server keeps to the processes on this node, which have them without a barrier.
const LOCAL: &str = "local::";
/// With the terminating NUL.
const KEY_MAX: usize = 64;
/// How often who waits for an attribute of the node asks for it, a second apart.
const TRIES: u32 = 30;

/// By this name `flux pmi --libpmi-noflux` and brokers tell this library from those of others.
// SAFETY: nobody else defines this name, nor those that follow, in this library.
#[unsafe(no_mangle)]
pub static flux_pmi_library: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

// All that follow are called by C, with pointers that are null or what `pmi2.h` says they are.

/// # Safety
/// Each is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Init(
    spawned: *mut c_int,
    size: *mut c_int,
    rank: *mut c_int,
    appnum: *mut c_int,
) -> c_int {
    answer(|| {
        flux_libpmi::init(|job| {
            if !appnum.is_null() {
                // SAFETY: the caller's promise.
                unsafe { give(appnum, job.appnum()?)? };
            }
            let launch = job.launch();
            for (place, value) in
                [(spawned, launch.spawned), (size, int(launch.size)), (rank, int(launch.rank))]
            {
                if !place.is_null() {
                    // SAFETY: the caller's promise.
                    unsafe { give(place, value)? };
                }
            }
            Ok(())
        })
    })
}

// SAFETY: see above.
#[unsafe(no_mangle)]
pub extern "C" fn PMI2_Finalize() -> c_int {
    answer(flux_libpmi::finalize)
}

/// Not a code, but whether.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub extern "C" fn PMI2_Initialized() -> c_int {
    c_int::from(flux_libpmi::is_initialized())
}

/// There is no way to end this process alone: `flag` is not looked at.
///
/// # Safety
/// `msg` is null, or a string.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Abort(_flag: c_int, msg: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let text = unsafe { text(msg) };
    flux_libpmi::abort("PMI2_Abort", 1, text.ok())
}

/// # Safety
/// `jobid` is null, or `jobid_size` bytes from there may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Job_GetId(jobid: *mut c_char, jobid_size: c_int) -> c_int {
    answer(|| {
        with(|job| {
            let name = job.name()?;
            room(jobid, jobid_size).map_err(|_| Failed::INVALID_ARGS)?;
            // SAFETY: the caller's promise.
            unsafe { give_text(jobid, jobid_size, name, Failed::INVALID_ARGS) }
        })
    })
}

/// # Safety
/// Both are null, or strings.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_KVS_Put(key: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    answer(|| with(|job| unsafe { put(job, text(key)?, text(value)?) }))
}

/// `src_pmi_id` is a hint at who has put it, which is not needed.
///
/// # Safety
/// `jobid` and `key` are null, or strings; `value` is null, or `maxvalue` bytes from there may be
/// written to; `vallen` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_KVS_Get(
    jobid: *const c_char,
    _src_pmi_id: c_int,
    key: *const c_char,
    value: *mut c_char,
    maxvalue: c_int,
    vallen: *mut c_int,
) -> c_int {
    let mut length = 0;
    let code = answer(|| {
        with(|job| {
            room(value, maxvalue)?;
            let jobid = match jobid.is_null() {
                true => job.name()?.to_owned(),
                // SAFETY: the caller's promise.
                false => unsafe { text(jobid)? }.to_owned(),
            };
            // SAFETY: the caller's promise.
            let found = job.get(&jobid, unsafe { text(key)? })?;
            // SAFETY: the caller's promise.
            unsafe { give_text(value, maxvalue, &found, Failed::FAIL)? };
            length = c_int::try_from(found.len()).unwrap_or(c_int::MAX);
            Ok(())
        })
    });
    // SAFETY: the caller's promise. Who does not ask for the length does not get it.
    let _ = unsafe { give(vallen, length) };
    code
}

// SAFETY: see above.
#[unsafe(no_mangle)]
pub extern "C" fn PMI2_KVS_Fence() -> c_int {
    answer(|| with(|job| job.barrier()))
}

/// # Safety
/// `name` is null, or a string; `value` is null, or `valuelen` bytes from there may be written to;
/// `found` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_GetJobAttr(
    name: *const c_char,
    value: *mut c_char,
    valuelen: c_int,
    found: *mut c_int,
) -> c_int {
    let code = answer(|| {
        // SAFETY: the caller's promise.
        let name = unsafe { text(name)? };
        room(value, valuelen)?;
        let attribute = with(|job| match name {
            "PMI_process_mapping" => get(job, name),
            "universeSize" => Ok(job.universe_size()?.to_string()),
            _ => Err(Failed::INVALID_KEY),
        })?;
        // SAFETY: the caller's promise.
        unsafe { give_text(value, valuelen, &attribute, Failed::INVALID_VAL_LENGTH) }
    });
    // SAFETY: the caller's promise. Who does not ask is told by the code alone.
    let _ = unsafe { give(found, c_int::from(code == 0)) };
    code
}

/// # Safety
/// Both are null, or strings.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_PutNodeAttr(name: *const c_char, value: *const c_char) -> c_int {
    answer(|| {
        // SAFETY: the caller's promise.
        let (name, value) = unsafe { (text(name)?, text(value)?) };
        with(|job| put(job, &local(name)?, value))
    })
}

/// # Safety
/// As [`PMI2_Info_GetJobAttr`].
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_GetNodeAttr(
    name: *const c_char,
    value: *mut c_char,
    valuelen: c_int,
    found: *mut c_int,
    waitfor: c_int,
) -> c_int {
    answer(|| {
        // SAFETY: the caller's promise.
        let key = local(unsafe { text(name)? });
        room(value, valuelen)?;
        let key = with(|_| key)?;
        let mut tries = if waitfor == 0 { 1 } else { TRIES };
        let result = loop {
            let result = with(|job| get(job, &key));
            tries -= 1;
            if result != Err(Failed::INVALID_KEY) || tries == 0 {
                break result;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        // Who asks whether there is one is not told by a failure.
        match result {
            Err(Failed::INVALID_KEY) if !found.is_null() => {
                // SAFETY: the caller's promise.
                unsafe { give(found, 0) }
            }
            Err(error) => Err(error),
            Ok(attribute) => {
                // SAFETY: the caller's promise.
                unsafe { give_text(value, valuelen, &attribute, Failed::INVALID_VAL_LENGTH)? };
                if !found.is_null() {
                    // SAFETY: the caller's promise.
                    unsafe { give(found, 1)? };
                }
                Ok(())
            }
        }
    })
}

/// Functions for which the server has nothing: processes that come later, other jobs, names of
/// services, arrays. C lets them be called with arguments that they do not look at.
macro_rules! not_offered {
    ($($name:ident)*) => {$(
        // SAFETY: see above.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            Failed::FAIL.0
        }
    )*};
}

not_offered! {
    PMI2_Job_Spawn
    PMI2_Job_GetRank
    PMI2_Job_Connect
    PMI2_Job_Disconnect
    PMI2_Info_GetSize
    PMI2_Info_GetNodeAttrIntArray
    PMI2_Info_GetJobAttrIntArray
    PMI2_Nameserv_publish
    PMI2_Nameserv_lookup
    PMI2_Nameserv_unpublish
}

fn int(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

fn put(job: &mut Job, key: &str, value: &str) -> Result<(), Failed> {
    let name = job.name()?.to_owned();
    job.put(&name, key, value)
}

fn get(job: &mut Job, key: &str) -> Result<String, Failed> {
    let name = job.name()?.to_owned();
    job.get(&name, key)
}

fn local(name: &str) -> Result<String, Failed> {
    let key = format!("{LOCAL}{name}");
    if key.len() >= KEY_MAX { Err(Failed::INVALID_KEY_LENGTH) } else { Ok(key) }
}
