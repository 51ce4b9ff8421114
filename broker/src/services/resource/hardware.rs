//! What this host has: cores and GPUs, and the topology that they are in.
//!
//! hwloc knows best, where its library is installed. Without it, `/sys` tells of cores, and GPUs
//! are not seen. Whatever made it, the topology is text (hwloc XML), and resources are read from
//! that text; so a topology that comes from a file gives the same.

pub mod hwloc;
mod linux;
pub mod xml;

use flux_protocol::r::Resources;

use self::xml::XmlError;

/// A host's hardware.
#[derive(Debug, Clone)]
pub struct Hardware {
    pub resources: Resources,
    /// hwloc XML, version 2.
    pub xml: String,
}

#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    #[error(transparent)]
    Hwloc(#[from] hwloc::HwlocError),
    #[error("{path}: {error}")]
    Sys { path: String, error: std::io::Error },
    #[error(transparent)]
    Xml(#[from] XmlError),
}

impl Hardware {
    /// Look at this host; some milliseconds of work. Unless `norestrict`, only what this process
    /// may use is seen.
    pub fn probe(norestrict: bool) -> Result<Hardware, HardwareError> {
        let xml = match hwloc::export(norestrict) {
            Err(hwloc::HwlocError::Missing(_)) => linux::topology(norestrict)?,
            xml => xml?,
        };
        Hardware::from_xml(xml)
    }

    /// From a topology in hwloc XML.
    pub fn from_xml(xml: String) -> Result<Hardware, HardwareError> {
        Ok(Hardware { resources: xml::resources(&xml)?, xml })
    }
}

/// The name of the host that a topology is of.
pub fn host_name(xml: &str) -> Option<String> {
    xml::host_name(xml)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hwloc_and_sys_see_the_same_cores() {
        let sys = Hardware::from_xml(linux::topology(false).unwrap()).unwrap();
        assert!(!sys.resources.cores.is_empty());
        match hwloc::export(false) {
            Ok(xml) => {
                let hwloc = Hardware::from_xml(xml).unwrap();
                assert_eq!(hwloc.resources.cores, sys.resources.cores);
                assert!(host_name(&hwloc.xml).is_some());
            }
            Err(hwloc::HwlocError::Missing(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn hwloc_reads_the_topology_that_we_write() {
        let ours = linux::topology(true).unwrap();
        match hwloc::reexport(&ours) {
            Ok(theirs) => {
                let (ours, theirs) = (Hardware::from_xml(ours), Hardware::from_xml(theirs));
                assert_eq!(ours.unwrap().resources, theirs.unwrap().resources);
            }
            Err(hwloc::HwlocError::Missing(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
