//! What this host has, by the broker's program (which knows hwloc), the kernel, or an hwloc XML
//! file.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use flux_protocol::idset::Idset;
use flux_protocol::r::{ResourceSet, Resources};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::context::Context;
use crate::failure::{Failure, strerror};

/// How hwloc names the GPUs that CUDA, NVML, OpenCL and AMD's RSMI see: one of these and a number.
const GPU_NAMES: [&str; 4] = ["cuda", "nvml", "opencl", "rsmi"];

/// Cores that this process may use, numbered from 0, and GPUs where hwloc sees some.
pub(crate) fn from_system(context: &Context) -> Result<Resources, Failure> {
    match from_broker(context, None) {
        Ok(set) => Ok(set.node(0).map(|node| (*node.resources).clone()).unwrap_or_default()),
        Err(_) => from_kernel(),
    }
}

/// What the configuration in a folder or file has, or else this host.
pub(super) fn from_broker(
    context: &Context,
    config: Option<&Path>,
) -> Result<ResourceSet, Failure> {
    let broker = context.layout.libexecdir().join("flux-broker");
    let mut command = Command::new(&broker);
    command.arg("--print-resources");
    if let Some(path) = config {
        command.arg("--config-path").arg(path);
    }
    let output = command.output().map_err(|e| Failure::of(broker.display(), strerror(&e)))?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    ResourceSet::decode(&String::from_utf8_lossy(&output.stdout)).map_err(Failure::new)
}

pub(crate) fn from_kernel() -> Result<Resources, Failure> {
    let allowed = sched_getaffinity(Pid::from_raw(0))
        .map_err(|e| Failure::of("failed to gather local topology", e.desc()))?;
    let mut cores = BTreeSet::new();
    for cpu in (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)) {
        let topology =
            Path::new("/sys/devices/system/cpu").join(format!("cpu{cpu}")).join("topology");
        let id = |name: &str| std::fs::read_to_string(topology.join(name)).ok();
        // Where the kernel does not tell, each CPU is a core.
        let core = id("physical_package_id").zip(id("core_id"));
        cores.insert(core.unwrap_or_else(|| (String::new(), cpu.to_string())));
    }
    let count = u32::try_from(cores.len()).map_err(Failure::new)?;
    Ok(Resources { cores: Idset::first_n(count), gpus: Idset::new() })
}

/// Cores and GPUs of a topology that hwloc has exported.
pub(super) fn from_xml(xml: &str) -> Resources {
    let mut cores = 0;
    let mut pci_devices = 0;
    // Each with its PCI device, and the way to program it.
    let mut gpus: Vec<(u32, &str)> = Vec::new();
    for tag in xml.split('<').filter_map(|tag| tag.strip_prefix("object ")) {
        let tag = tag.split('>').next().unwrap_or_default();
        match attribute(tag, "type") {
            Some("Core") => cores += 1,
            Some("PCIDev") => pci_devices += 1,
            Some("OSDev") => {
                let name = attribute(tag, "name").unwrap_or_default();
                let backend = GPU_NAMES.into_iter().find(|prefix| name.starts_with(prefix));
                // One GPU shows up once per way to program it. Several of one way are parts of a
                // GPU that is divided, and count each.
                let is_new = |backend: &&str| {
                    gpus.iter().all(|(pci, other)| *pci != pci_devices || other == backend)
                };
                if let Some(backend) = backend.filter(is_new) {
                    gpus.push((pci_devices, backend));
                }
            }
            _ => {}
        }
    }
    let gpus = u32::try_from(gpus.len()).unwrap_or(0);
    Resources { cores: Idset::first_n(cores), gpus: Idset::first_n(gpus) }
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = tag.match_indices(name).find_map(|(at, _)| {
        let value = tag.get(at + name.len()..)?.strip_prefix("=\"")?;
        let word_starts = tag.get(..at)?.chars().next_back().is_none_or(char::is_whitespace);
        word_starts.then_some(value)
    })?;
    start.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_tells_cores_and_gpus() {
        let xml = r#"<topology><object type="Machine"><object type="Core" os_index="0">
            <object type="PU" os_index="0"/></object><object type="Core"/>
            <object type="OSDev" name="cuda0" subtype="CUDA" osdev_type="5"/>
            <object type="OSDev" name="opencl0d0" osdev_type="5"/></object></topology>"#;
        let resources = from_xml(xml);
        assert_eq!((resources.cores.count(), resources.gpus.count()), (2, 1));
    }

    #[test]
    fn gpus_of_amd_count_and_each_once() {
        let device = |names: &[&str]| {
            let mut text = "<object type=\"PCIDev\" pci_busid=\"0000:63:00.0\">".to_owned();
            for name in names {
                text.push_str(&format!(
                    "<object type=\"OSDev\" name=\"{name}\" osdev_type=\"1\"/>"
                ));
            }
            text + "</object>"
        };
        let gpus = |devices: &[&[&str]]| {
            let xml: String = devices.iter().map(|names| device(names)).collect();
            from_xml(&xml).gpus.count()
        };
        assert_eq!(gpus(&[&["rsmi0"], &["rsmi1", "opencl0d1"], &["eno1"]]), 2);
        assert_eq!(gpus(&[&["cuda0", "nvml0", "opencl0d0", "card0"]]), 1);
        assert_eq!(gpus(&[&["rsmi0", "rsmi1", "opencl0d0"]]), 2, "parts of one");
    }

    #[test]
    fn this_host_has_a_core() {
        assert!(from_kernel().unwrap().cores.count() > 0);
    }
}
