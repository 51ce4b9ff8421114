//! The topology by hwloc, whose library is loaded when it is needed, so that a host without it can
//! run a broker.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use self::sys::Topology;

/// A topology in place of this host's, for tests of what is on other hosts.
const XML_FILE: &str = "FLUX_HWLOC_XMLFILE";
/// It is not the topology of this host at all, so our processors are not looked for in it.
const XML_FILE_NOT_THISSYSTEM: &str = "FLUX_HWLOC_XMLFILE_NOT_THISSYSTEM";

#[derive(Debug, thiserror::Error)]
pub enum HwlocError {
    #[error("hwloc is not installed: {0}")]
    Missing(String),
    #[error("hwloc: {0} failed")]
    Failed(&'static str),
    #[error("{XML_FILE} has a NUL byte")]
    FileName,
}

/// This host's topology as XML.
pub(super) fn export(norestrict: bool) -> Result<String, HwlocError> {
    let mut topology = Topology::new()?;
    let mut restrict = !norestrict;
    if let Some(path) = std::env::var_os(XML_FILE) {
        restrict &= std::env::var_os(XML_FILE_NOT_THISSYSTEM).is_none();
        let path = CString::new(path.into_vec()).map_err(|_| HwlocError::FileName)?;
        topology.use_file(&path, restrict)?;
    }
    topology.load()?;
    if restrict {
        topology.restrict()?;
    }
    topology.export()
}

/// Read a topology, and write it again.
#[cfg(test)]
pub(super) fn reexport(xml: &str) -> Result<String, HwlocError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, xml.as_bytes()).unwrap();
    let path = CString::new(file.path().as_os_str().to_owned().into_vec()).unwrap();
    let mut topology = Topology::new()?;
    topology.use_file(&path, false)?;
    topology.load()?;
    topology.export()
}

/// The C interface of hwloc 2.
#[allow(unsafe_code, reason = "hwloc is a C library")]
mod sys {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
    use std::ptr;

    use libloading::{Library, Symbol};

    use super::HwlocError;

    const LIBRARY: &str = "libhwloc.so.15";
    const API_VERSION_MAJOR: c_uint = 2;
    const TYPE_FILTER_KEEP_STRUCTURE: c_int = 2;
    const TYPE_FILTER_KEEP_IMPORTANT: c_int = 3;
    const FLAG_IS_THISSYSTEM: c_ulong = 2;
    const COMPONENTS_FLAG_BLACKLIST: c_ulong = 1;
    const CPUBIND_PROCESS: c_int = 1;

    type Handle = *mut c_void;

    /// A `hwloc_topology_t`.
    pub(super) struct Topology {
        handle: Handle,
        library: Library,
    }

    impl Topology {
        /// With the filters that Flux uses everywhere.
        pub(super) fn new() -> Result<Topology, HwlocError> {
            // SAFETY: loading hwloc runs its constructors, which do nothing but set themselves up.
            let library = unsafe { Library::new(LIBRARY) }
                .map_err(|error| HwlocError::Missing(error.to_string()))?;
            let mut topology = Topology { handle: ptr::null_mut(), library };
            let version = topology.call::<extern "C" fn() -> c_uint>("hwloc_get_api_version")?;
            if version() >> 16 != API_VERSION_MAJOR {
                return Err(HwlocError::Missing("its version is not 2".to_owned()));
            }
            let init =
                topology.call::<extern "C" fn(*mut Handle) -> c_int>("hwloc_topology_init")?;
            let mut handle = ptr::null_mut();
            check("hwloc_topology_init", init(&raw mut handle))?;
            topology.handle = handle;
            topology.filter("hwloc_topology_set_io_types_filter", TYPE_FILTER_KEEP_IMPORTANT)?;
            topology
                .filter("hwloc_topology_set_icache_types_filter", TYPE_FILTER_KEEP_STRUCTURE)?;
            topology.without_gl()?;
            Ok(topology)
        }

        /// Read an XML file in place of the hardware.
        pub(super) fn use_file(
            &mut self,
            path: &CStr,
            is_this_system: bool,
        ) -> Result<(), HwlocError> {
            let name = "hwloc_topology_set_xml";
            let set = self.call::<extern "C" fn(Handle, *const c_char) -> c_int>(name)?;
            check(name, set(self.handle, path.as_ptr()))?;
            let name = "hwloc_topology_set_flags";
            let set = self.call::<extern "C" fn(Handle, c_ulong) -> c_int>(name)?;
            check(name, set(self.handle, if is_this_system { FLAG_IS_THISSYSTEM } else { 0 }))
        }

        pub(super) fn load(&mut self) -> Result<(), HwlocError> {
            let name = "hwloc_topology_load";
            let load = self.call::<extern "C" fn(Handle) -> c_int>(name)?;
            check(name, load(self.handle))
        }

        /// Drop what this process may not run on.
        pub(super) fn restrict(&mut self) -> Result<(), HwlocError> {
            let alloc = self.call::<extern "C" fn() -> Handle>("hwloc_bitmap_alloc")?;
            let free = self.call::<extern "C" fn(Handle)>("hwloc_bitmap_free")?;
            let set = alloc();
            let result = self.restrict_to_binding(set);
            free(set);
            result
        }

        fn restrict_to_binding(&self, set: Handle) -> Result<(), HwlocError> {
            let name = "hwloc_get_cpubind";
            let get = self.call::<extern "C" fn(Handle, Handle, c_int) -> c_int>(name)?;
            check(name, get(self.handle, set, CPUBIND_PROCESS))?;
            let name = "hwloc_topology_restrict";
            let restrict = self.call::<extern "C" fn(Handle, Handle, c_ulong) -> c_int>(name)?;
            check(name, restrict(self.handle, set, 0))
        }

        /// The topology as XML.
        pub(super) fn export(&self) -> Result<String, HwlocError> {
            type Export = extern "C" fn(Handle, *mut *mut c_char, *mut c_int, c_ulong) -> c_int;
            let name = "hwloc_topology_export_xmlbuffer";
            let export = self.call::<Export>(name)?;
            let free = self.call::<extern "C" fn(Handle, *mut c_char)>("hwloc_free_xmlbuffer")?;
            let (mut buffer, mut length) = (ptr::null_mut(), 0);
            check(name, export(self.handle, &raw mut buffer, &raw mut length, 0))?;
            if buffer.is_null() {
                return Err(HwlocError::Failed(name));
            }
            // SAFETY: hwloc gave a string that ends in a NUL byte, and it is ours until it is freed.
            let xml = unsafe { CStr::from_ptr(buffer) }.to_string_lossy().into_owned();
            free(self.handle, buffer);
            Ok(xml)
        }

        fn filter(&self, name: &'static str, filter: c_int) -> Result<(), HwlocError> {
            let set = self.call::<extern "C" fn(Handle, c_int) -> c_int>(name)?;
            check(name, set(self.handle, filter))
        }

        /// The component that asks X servers for displays complains where it may not.
        fn without_gl(&self) -> Result<(), HwlocError> {
            type Set = extern "C" fn(Handle, c_ulong, *const c_char) -> c_int;
            let set = self.call::<Set>("hwloc_topology_set_components")?;
            // It fails where there is no such component.
            let _ = set(self.handle, COMPONENTS_FLAG_BLACKLIST, c"gl".as_ptr());
            Ok(())
        }

        /// A function of the library; `F` is its type as hwloc.h declares it.
        fn call<F>(&self, name: &'static str) -> Result<Symbol<'_, F>, HwlocError> {
            // SAFETY: all names here are functions, and their types are those of hwloc.h for
            // version 2, which was checked. The handle and sets that they are given are alive.
            unsafe { self.library.get(name.as_bytes()) }.map_err(|_| HwlocError::Failed(name))
        }
    }

    impl Drop for Topology {
        fn drop(&mut self) {
            if self.handle.is_null() {
                return;
            }
            if let Ok(destroy) = self.call::<extern "C" fn(Handle)>("hwloc_topology_destroy") {
                destroy(self.handle);
            }
        }
    }

    fn check(name: &'static str, result: c_int) -> Result<(), HwlocError> {
        if result < 0 { Err(HwlocError::Failed(name)) } else { Ok(()) }
    }
}
