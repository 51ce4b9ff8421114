//! The client by the library of a launcher, `libpmi.so` or `libpmi2.so`, which is loaded when it is
//! asked for. For launchers that do not speak the wire protocol, or not to everybody.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use crate::Failed;

/// Our own libraries have this.
const OURS: &str = "flux_pmi_library";
/// Both of Cray's have this.
const CRAY: &str = "PMI_CRAY_Get_app_size";
/// Room for a value or a name.
const ROOM: usize = 1024;

/// Which of the two interfaces of C a library has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `pmi.h`
    Pmi1,
    /// `pmi2.h`
    Pmi2,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Not our own libraries: who starts brokers by them would find himself.
    pub noflux: bool,
    /// As if Cray's PMI-2 library had been found.
    pub cray: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("{0}")]
    Open(String),
    #[error("{path}: {name} is missing: not a PMI library")]
    Symbol { path: String, name: &'static str },
    #[error("{path}: this is Flux's own library ({found})")]
    Ours { path: String, found: String },
    #[error("{path}: Cray's PMI-1 library does not work for this: use libpmi2")]
    Cray { path: String },
    #[error("{found}: {error}")]
    Init { found: String, error: Failed },
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A process of a launch, past the init of its launcher's library.
#[derive(Debug)]
pub struct LaunchLibrary {
    functions: Functions,
    rank: u32,
    size: u32,
    name: String,
}

#[derive(Debug)]
enum Functions {
    Pmi1(Pmi1),
    Pmi2(Pmi2),
}

#[derive(Debug)]
struct Pmi1 {
    library: Loaded,
}

#[derive(Debug)]
struct Pmi2 {
    library: Loaded,
    cray: bool,
}

#[derive(Debug)]
struct Loaded {
    /// Not unloaded: some leave threads and exit handlers behind.
    library: ManuallyDrop<Library>,
    path: String,
    /// Where the dynamic linker has found it.
    found: String,
}

type Get1 = extern "C" fn(*const c_char, *const c_char, *mut c_char, c_int) -> c_int;
type Get2 =
    extern "C" fn(*const c_char, c_int, *const c_char, *mut c_char, c_int, *mut c_int) -> c_int;
type Attr2 = extern "C" fn(*const c_char, *mut c_char, c_int, *mut c_int) -> c_int;
type Ints4 = extern "C" fn(*mut c_int, *mut c_int, *mut c_int, *mut c_int) -> c_int;
type Name = extern "C" fn(*mut c_char, c_int) -> c_int;
type Int = extern "C" fn(*mut c_int) -> c_int;
type Nothing = extern "C" fn() -> c_int;
type Text = extern "C" fn(*const c_char) -> c_int;
type Texts2 = extern "C" fn(*const c_char, *const c_char) -> c_int;
type Texts3 = extern "C" fn(*const c_char, *const c_char, *const c_char) -> c_int;
type Abort = extern "C" fn(c_int, *const c_char) -> c_int;

// === impl Interface ===

impl Interface {
    /// From `libpmi[:PATH]` or `libpmi2[:PATH]`, with the path if there is one.
    pub fn of_method(method: &str) -> Option<(Interface, Option<&str>)> {
        let (name, path) = match method.split_once(':') {
            Some((name, path)) => (name, Some(path)),
            None => (method, None),
        };
        let all = [Interface::Pmi1, Interface::Pmi2];
        all.into_iter().find(|interface| interface.method() == name).map(|found| (found, path))
    }

    /// As the methods of a client are called.
    pub fn method(self) -> &'static str {
        match self {
            Interface::Pmi1 => "libpmi",
            Interface::Pmi2 => "libpmi2",
        }
    }

    /// As the dynamic linker is asked for it.
    fn file(self) -> &'static str {
        match self {
            Interface::Pmi1 => "libpmi.so",
            Interface::Pmi2 => "libpmi2.so",
        }
    }
}

// === impl LaunchLibrary ===

impl LaunchLibrary {
    /// Longest value that is got, with the terminating NUL of C.
    pub const VALUE_MAX: usize = ROOM;

    /// Load the library, by its name or from `path`, and begin.
    pub fn init(
        interface: Interface,
        path: Option<&str>,
        options: Options,
    ) -> Result<LaunchLibrary, LibraryError> {
        let path = path.unwrap_or(interface.file());
        let functions = match interface {
            Interface::Pmi1 => Functions::Pmi1(Pmi1::load(path, options)?),
            Interface::Pmi2 => Functions::Pmi2(Pmi2::load(path, options)?),
        };
        let (rank, size, name) = match &functions {
            Functions::Pmi1(library) => library.init()?,
            Functions::Pmi2(library) => library.init()?,
        };
        let library = LaunchLibrary { functions, rank, size, name };
        if rank >= size {
            let found = library.loaded().found.clone();
            return Err(LibraryError::Init { found, error: Failed::INVALID_SIZE });
        }
        Ok(library)
    }

    pub fn interface(&self) -> Interface {
        match self.functions {
            Functions::Pmi1(_) => Interface::Pmi1,
            Functions::Pmi2(_) => Interface::Pmi2,
        }
    }

    /// Which file it is, for whoever traces.
    pub fn note(&self) -> String {
        let cray = matches!(&self.functions, Functions::Pmi2(pmi2) if pmi2.cray);
        let cray = if cray { " (cray quirks enabled)" } else { "" };
        format!("using {}{cray}", self.loaded().found)
    }

    fn loaded(&self) -> &Loaded {
        match &self.functions {
            Functions::Pmi1(pmi1) => &pmi1.library,
            Functions::Pmi2(pmi2) => &pmi2.library,
        }
    }

    pub fn rank(&self) -> u32 {
        self.rank
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    /// Of the space that all processes of the launch share.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Offer a value to all; they may get it after the next barrier.
    pub fn put(&self, key: &str, value: &str) -> Result<(), LibraryError> {
        match &self.functions {
            Functions::Pmi1(library) => library.put(&self.name, key, value),
            Functions::Pmi2(library) => library.put(key, value),
        }
    }

    pub fn get(&self, key: &str) -> Result<String, LibraryError> {
        match &self.functions {
            Functions::Pmi1(library) => library.get(&self.name, key),
            Functions::Pmi2(library) => library.get(key),
        }
    }

    /// Wait until all processes are here.
    pub fn barrier(&self) -> Result<(), LibraryError> {
        match &self.functions {
            Functions::Pmi1(library) => library.barrier(&self.name),
            Functions::Pmi2(library) => library.barrier(),
        }
    }

    /// Have the launcher end all processes. Libraries tend not to return from it.
    pub fn abort(&self, text: &str) -> Result<(), LibraryError> {
        match &self.functions {
            Functions::Pmi1(library) => library.abort(text),
            Functions::Pmi2(library) => library.abort(text),
        }
    }

    pub fn finalize(self) -> Result<(), LibraryError> {
        match &self.functions {
            Functions::Pmi1(library) => library.finalize(),
            Functions::Pmi2(library) => library.finalize(),
        }
    }
}

// === impl Loaded ===

impl Loaded {
    fn open(
        path: &str,
        names: &'static [&'static str],
        options: Options,
    ) -> Result<Loaded, LibraryError> {
        // SAFETY: the user has named a PMI library, or the launcher has put one in the way of the
        // dynamic linker; what its constructors do is the same for every MPI program that it loads.
        // RTLD_GLOBAL, as some of them load plugins that need the library's symbols.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.map_err(|error| LibraryError::Open(error.to_string()))?;
        let library = ManuallyDrop::new(library);
        let mut loaded = Loaded { library, path: path.to_owned(), found: path.to_owned() };
        let Some(first) = names.first() else { return Ok(loaded) };
        for name in names {
            if loaded.address(name).is_none() {
                return Err(LibraryError::Symbol { path: loaded.path, name });
            }
        }
        if let Some(found) = loaded.address(first).and_then(file_of) {
            loaded.found = found;
        }
        if options.noflux && loaded.address(OURS).is_some() {
            return Err(LibraryError::Ours { path: loaded.path, found: loaded.found });
        }
        Ok(loaded)
    }

    fn address(&self, name: &str) -> Option<*mut c_void> {
        // SAFETY: the address is not made use of here; any type of the size of a pointer will do.
        let symbol: Symbol<*mut c_void> = unsafe { self.library.get(name.as_bytes()) }.ok()?;
        Some(symbol.into_raw())
    }

    /// A function of the interface. `F` has to be its type, as `pmi.h` and `pmi2.h` have it.
    fn function<F>(&self, name: &'static str) -> Result<Symbol<F>, LibraryError> {
        // SAFETY: callers name the type of the function; all that is called with it is in this file.
        let symbol = unsafe { self.library.get(name.as_bytes()) };
        symbol.map_err(|_| LibraryError::Symbol { path: self.path.clone(), name })
    }

    fn failed_init(&self, error: Failed) -> LibraryError {
        LibraryError::Init { found: self.found.clone(), error }
    }
}

/// The file that something in it was loaded from.
fn file_of(address: *mut c_void) -> Option<String> {
    let mut info = nix::libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address may be asked about, and `info` may be written to.
    let known = unsafe { nix::libc::dladdr(address, &raw mut info) };
    if known == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is a string, which stays while the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(name.to_string_lossy().into_owned())
}

// === impl Pmi1 ===

impl Pmi1 {
    fn load(path: &str, options: Options) -> Result<Pmi1, LibraryError> {
        let names = &[
            "PMI_Init",
            "PMI_Finalize",
            "PMI_Get_size",
            "PMI_Get_rank",
            "PMI_Barrier",
            "PMI_KVS_Get_my_name",
            "PMI_KVS_Put",
            "PMI_KVS_Commit",
            "PMI_KVS_Get",
            "PMI_Abort",
        ];
        let library = Loaded::open(path, names, options)?;
        if library.address(CRAY).is_some() {
            return Err(LibraryError::Cray { path: library.path });
        }
        Ok(Pmi1 { library })
    }

    /// Rank, size, and the name of the space.
    fn init(&self) -> Result<(u32, u32, String), LibraryError> {
        let failed = |error| self.library.failed_init(error);
        let number = |name: &'static str| {
            let mut value: c_int = 0;
            check(self.library.function::<Int>(name)?(&raw mut value)).map_err(failed)?;
            Ok::<_, LibraryError>(value)
        };
        number("PMI_Init")?;
        let get = self.library.function::<Name>("PMI_KVS_Get_my_name")?;
        let name = filled(|buffer, size| get(buffer, size)).map_err(failed)?;
        Ok((count(number("PMI_Get_rank")?)?, count(number("PMI_Get_size")?)?, name))
    }

    fn put(&self, name: &str, key: &str, value: &str) -> Result<(), LibraryError> {
        let put = self.library.function::<Texts3>("PMI_KVS_Put")?;
        let (name, key, value) = (c(name)?, c(key)?, c(value)?);
        check(put(name.as_ptr(), key.as_ptr(), value.as_ptr())).map_err(LibraryError::from)
    }

    fn get(&self, name: &str, key: &str) -> Result<String, LibraryError> {
        let get = self.library.function::<Get1>("PMI_KVS_Get")?;
        let (name, key) = (c(name)?, c(key)?);
        Ok(filled(|buffer, size| get(name.as_ptr(), key.as_ptr(), buffer, size))?)
    }

    fn barrier(&self, name: &str) -> Result<(), LibraryError> {
        let commit = self.library.function::<Text>("PMI_KVS_Commit")?;
        check(commit(c(name)?.as_ptr()))?;
        Ok(check(self.library.function::<Nothing>("PMI_Barrier")?())?)
    }

    fn abort(&self, text: &str) -> Result<(), LibraryError> {
        let abort = self.library.function::<Abort>("PMI_Abort")?;
        Ok(check(abort(1, c(text)?.as_ptr()))?)
    }

    fn finalize(&self) -> Result<(), LibraryError> {
        Ok(check(self.library.function::<Nothing>("PMI_Finalize")?())?)
    }
}

// === impl Pmi2 ===

impl Pmi2 {
    fn load(path: &str, options: Options) -> Result<Pmi2, LibraryError> {
        let names = &[
            "PMI2_Init",
            "PMI2_Finalize",
            "PMI2_Abort",
            "PMI2_Job_GetId",
            "PMI2_KVS_Put",
            "PMI2_KVS_Fence",
            "PMI2_KVS_Get",
            "PMI2_Info_GetJobAttr",
        ];
        let library = Loaded::open(path, names, options)?;
        let cray = options.cray || library.address(CRAY).is_some();
        Ok(Pmi2 { library, cray })
    }

    /// Rank, size, and the name of the space.
    fn init(&self) -> Result<(u32, u32, String), LibraryError> {
        let failed = |error| self.library.failed_init(error);
        let (mut spawned, mut size, mut rank, mut appnum): (c_int, c_int, c_int, c_int) =
            (0, 0, 0, 0);
        let init = self.library.function::<Ints4>("PMI2_Init")?;
        check(init(&raw mut spawned, &raw mut size, &raw mut rank, &raw mut appnum))
            .map_err(failed)?;
        // Outside of a job Slurm's library fails no sooner than here.
        let get = self.library.function::<Name>("PMI2_Job_GetId")?;
        let name = filled(|buffer, size| get(buffer, size)).map_err(failed)?;
        Ok((count(rank)?, count(size)?, name))
    }

    fn put(&self, key: &str, value: &str) -> Result<(), LibraryError> {
        let put = self.library.function::<Texts2>("PMI2_KVS_Put")?;
        // Cray's library takes no semicolon and no equal sign in a value.
        let value =
            if self.cray { STANDARD.encode(value).replace('=', "*") } else { value.to_owned() };
        Ok(check(put(c(key)?.as_ptr(), c(&value)?.as_ptr()))?)
    }

    fn get(&self, key: &str) -> Result<String, LibraryError> {
        // Cray's library says on standard error what it does not have, and Flux's keys it never has.
        if self.cray && key.starts_with("flux.") {
            return Err(Failed::INVALID_KEY.into());
        }
        let name = c(key)?;
        let mut ignored: c_int = 0;
        if key == "PMI_process_mapping" {
            let get = self.library.function::<Attr2>("PMI2_Info_GetJobAttr")?;
            let value = filled(|buffer, size| get(name.as_ptr(), buffer, size, &raw mut ignored))?;
            return if ignored == 0 { Err(Failed::INVALID_KEY.into()) } else { Ok(value) };
        }
        let get = self.library.function::<Get2>("PMI2_KVS_Get")?;
        // Of this job, and from whomever.
        let value = filled(|buffer, size| {
            get(std::ptr::null(), -1, name.as_ptr(), buffer, size, &raw mut ignored)
        })?;
        if !self.cray {
            return Ok(value);
        }
        let bytes = STANDARD.decode(value.replace('*', "=")).map_err(|_| Failed::INVALID_VAL)?;
        Ok(String::from_utf8(bytes).map_err(|_| Failed::INVALID_VAL)?)
    }

    fn barrier(&self) -> Result<(), LibraryError> {
        Ok(check(self.library.function::<Nothing>("PMI2_KVS_Fence")?())?)
    }

    fn abort(&self, text: &str) -> Result<(), LibraryError> {
        let abort = self.library.function::<Abort>("PMI2_Abort")?;
        // Not this process alone, but all of the job.
        Ok(check(abort(1, c(text)?.as_ptr()))?)
    }

    fn finalize(&self) -> Result<(), LibraryError> {
        Ok(check(self.library.function::<Nothing>("PMI2_Finalize")?())?)
    }
}

fn check(code: c_int) -> Result<(), Failed> {
    if code == 0 { Ok(()) } else { Err(Failed(code)) }
}

fn count(value: c_int) -> Result<u32, Failed> {
    u32::try_from(value).map_err(|_| Failed::FAIL)
}

fn c(text: &str) -> Result<CString, Failed> {
    CString::new(text).map_err(|_| Failed::INVALID_ARG)
}

/// Have a string written.
fn filled(fill: impl FnOnce(*mut c_char, c_int) -> c_int) -> Result<String, Failed> {
    let mut buffer = [0_u8; ROOM];
    let size = c_int::try_from(ROOM).unwrap_or(0);
    check(fill(buffer.as_mut_ptr().cast(), size))?;
    let text = CStr::from_bytes_until_nul(&buffer).map_err(|_| Failed::FAIL)?;
    Ok(text.to_string_lossy().into_owned())
}
