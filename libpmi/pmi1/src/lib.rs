//! `libpmi.so`: the PMI-1 interface for C, as `pmi.h` declares it, over the wire protocol of RFC 13.
//! No header is needed to use it: MPIs look for these names in the library that
//! `FLUX_PMI_LIBRARY_PATH` names.
#![allow(unsafe_code, non_snake_case, non_upper_case_globals)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::AtomicPtr;

use flux_libpmi::{answer, give, give_text, room, text, with};
use flux_pmi::Failed;
use flux_protocol::taskmap::Taskmap;

/// By this name `flux pmi --libpmi-noflux` and brokers tell this library from those of others.
// SAFETY: nobody else defines this name, nor those that follow, in this library.
#[unsafe(no_mangle)]
pub static flux_pmi_library: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

// All that follow are called by C, with pointers that are null or what `pmi.h` says they are.

/// # Safety
/// `spawned` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Init(spawned: *mut c_int) -> c_int {
    answer(|| {
        flux_libpmi::init(|job| {
            if !spawned.is_null() {
                // SAFETY: the caller's promise.
                unsafe { give(spawned, job.launch().spawned)? };
            }
            Ok(())
        })
    })
}

/// # Safety
/// `initialized` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Initialized(initialized: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    answer(|| unsafe { give(initialized, c_int::from(flux_libpmi::is_initialized())) })
}

// SAFETY: see above.
#[unsafe(no_mangle)]
pub extern "C" fn PMI_Finalize() -> c_int {
    answer(flux_libpmi::finalize)
}

/// # Safety
/// `error_msg` is null, or a string.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Abort(exit_code: c_int, error_msg: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let text = unsafe { text(error_msg) };
    flux_libpmi::abort("PMI_Abort", exit_code, text.ok())
}

/// # Safety
/// `size` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_size(size: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| Ok(int(job.launch().size)), |value| unsafe { give(size, value) })
}

/// # Safety
/// `rank` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_rank(rank: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| Ok(int(job.launch().rank)), |value| unsafe { give(rank, value) })
}

/// # Safety
/// `size` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_universe_size(size: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| job.universe_size(), |value| unsafe { give(size, value) })
}

/// # Safety
/// `appnum` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_appnum(appnum: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| job.appnum(), |value| unsafe { give(appnum, value) })
}

/// # Safety
/// `kvsname` is null, or `length` bytes from there may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_my_name(kvsname: *mut c_char, length: c_int) -> c_int {
    answer(|| {
        with(|job| {
            room(kvsname, length)?;
            // SAFETY: the caller's promise.
            unsafe { give_text(kvsname, length, job.name()?, Failed::FAIL) }
        })
    })
}

/// # Safety
/// `length` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_name_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| Ok(job.maxes().name), |value| unsafe { give(length, value) })
}

/// # Safety
/// `length` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_key_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| Ok(job.maxes().key), |value| unsafe { give(length, value) })
}

/// # Safety
/// `length` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_value_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    number(|job| Ok(job.maxes().value), |value| unsafe { give(length, value) })
}

/// # Safety
/// All are null, or strings.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Put(
    kvsname: *const c_char,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    answer(|| with(|job| unsafe { job.put(text(kvsname)?, text(key)?, text(value)?) }))
}

/// # Safety
/// `kvsname` and `key` are null, or strings; `value` is null, or `length` bytes from there may be
/// written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get(
    kvsname: *const c_char,
    key: *const c_char,
    value: *mut c_char,
    length: c_int,
) -> c_int {
    answer(|| {
        with(|job| {
            room(value, length)?;
            // SAFETY: the caller's promise.
            let found = unsafe { job.get(text(kvsname)?, text(key)?)? };
            // SAFETY: the caller's promise.
            unsafe { give_text(value, length, &found, Failed::FAIL) }
        })
    })
}

/// The server has what was put at once; others get it after a barrier.
///
/// # Safety
/// `kvsname` is null, or a string.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Commit(kvsname: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    answer(|| with(|_| unsafe { text(kvsname) }.map(drop)))
}

// SAFETY: see above.
#[unsafe(no_mangle)]
pub extern "C" fn PMI_Barrier() -> c_int {
    answer(|| with(|job| job.barrier()))
}

/// # Safety
/// `ranks` is null, or `length` numbers from there may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_clique_ranks(ranks: *mut c_int, length: c_int) -> c_int {
    answer(|| {
        with(|job| {
            if ranks.is_null() {
                return Err(Failed::INVALID_ARG);
            }
            let clique = clique(job)?;
            if room(ranks, length).unwrap_or(0) < clique.len() {
                return Err(Failed::INVALID_SIZE);
            }
            for (index, rank) in clique.into_iter().enumerate() {
                // SAFETY: the caller's promise; `index` is below `length`.
                unsafe { give(ranks.add(index), int(rank))? };
            }
            Ok(())
        })
    })
}

/// # Safety
/// `size` is null, or may be written to.
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_clique_size(size: *mut c_int) -> c_int {
    let count = |job: &mut _| Ok(c_int::try_from(clique(job)?.len()).unwrap_or(c_int::MAX));
    // SAFETY: the caller's promise.
    number(count, |value| unsafe { give(size, value) })
}

/// # Safety
/// As [`PMI_KVS_Get_name_length_max`].
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_id_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { PMI_KVS_Get_name_length_max(length) }
}

/// # Safety
/// As [`PMI_KVS_Get_my_name`].
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_id(kvsname: *mut c_char, length: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { PMI_KVS_Get_my_name(kvsname, length) }
}

/// # Safety
/// As [`PMI_KVS_Get_my_name`].
// SAFETY: see above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_kvs_domain_id(kvsname: *mut c_char, length: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { PMI_KVS_Get_my_name(kvsname, length) }
}

/// Functions for which the server has nothing: processes that come later, names of services,
/// further spaces. C lets them be called with arguments that they do not look at.
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
    PMI_Publish_name
    PMI_Unpublish_name
    PMI_Lookup_name
    PMI_Spawn_multiple
    PMI_KVS_Create
    PMI_KVS_Destroy
    PMI_KVS_Iter_first
    PMI_KVS_Iter_next
    PMI_Parse_option
    PMI_Args_to_keyval
    PMI_Free_keyvals
    PMI_Get_options
}

/// Ask for a number, and give it.
fn number(
    ask: impl FnOnce(&mut flux_libpmi::Job) -> Result<c_int, Failed>,
    give: impl FnOnce(c_int) -> Result<(), Failed>,
) -> c_int {
    answer(|| give(with(ask)?))
}

fn int(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

/// The processes on this node; this one alone where nothing is known about that.
fn clique(job: &mut flux_libpmi::Job) -> Result<Vec<u32>, Failed> {
    let rank = job.launch().rank;
    let name = job.name()?.to_owned();
    // Flux's own form is shorter: the other one may have been too long to be offered.
    let map = job.get(&name, "flux.taskmap").or_else(|_| job.get(&name, "PMI_process_mapping"));
    let Ok(map) = map else { return Ok(vec![rank]) };
    let map = Taskmap::decode(&map).map_err(|_| Failed::FAIL)?;
    if map.is_unknown() {
        return Ok(vec![rank]);
    }
    let node = map.nodeid(rank).ok_or(Failed::FAIL)?;
    Ok(map.taskids(node).iter().collect())
}
