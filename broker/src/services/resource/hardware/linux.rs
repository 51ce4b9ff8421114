//! The topology by `/sys`, for hosts without hwloc's library.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use flux_protocol::idset::Idset;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;

use super::HardwareError;

const CPUS: &str = "/sys/devices/system/cpu";

/// A processor, by the numbers of the operating system.
#[derive(Debug, Clone, Copy)]
struct Processor {
    package: u32,
    core: u32,
    cpu: u32,
}

/// Cores by package, processors by core. Cores are ordered by their first processor, as in hwloc.
type Packages = BTreeMap<u32, Vec<(u32, Idset)>>;

/// hwloc XML of this host: packages, cores and processors, and all memory in one NUMA node.
pub(super) fn topology(norestrict: bool) -> Result<String, HardwareError> {
    let online = online()?;
    let cpus = if norestrict { online } else { online.intersect(&allowed()?) };
    let processors: Vec<Processor> = cpus.iter().map(processor).collect();
    Ok(write(&packages(&processors), &cpus, memory()))
}

fn online() -> Result<Idset, HardwareError> {
    let path = format!("{CPUS}/online");
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| HardwareError::Sys { path: path.clone(), error })?;
    let invalid = |_| HardwareError::Sys { path, error: std::io::ErrorKind::InvalidData.into() };
    text.trim().parse().map_err(invalid)
}

/// What this process may run on, which a control group or a parent may have limited.
fn allowed() -> Result<Idset, HardwareError> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(|errno| HardwareError::Sys {
        path: "sched_getaffinity".to_owned(),
        error: errno.into(),
    })?;
    let is_set = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    let cpus = (0..CpuSet::count()).filter(is_set);
    Ok(cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect())
}

/// A processor about which `/sys` says nothing is a core of its own.
fn processor(cpu: u32) -> Processor {
    let number = |name: &str| {
        let path = Path::new(CPUS).join(format!("cpu{cpu}/topology/{name}"));
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Processor {
        package: number("physical_package_id").unwrap_or(0),
        core: number("core_id").unwrap_or(cpu),
        cpu,
    }
}

fn packages(processors: &[Processor]) -> Packages {
    let mut packages = Packages::new();
    for &Processor { package, core, cpu } in processors {
        let cores = packages.entry(package).or_default();
        match cores.iter_mut().find(|(known, _)| *known == core) {
            Some((_, cpus)) => {
                cpus.insert(cpu);
            }
            None => cores.push((core, Idset::from_iter([cpu]))),
        }
    }
    packages
}

/// Bytes of memory.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

fn write(packages: &Packages, cpus: &Idset, memory: u64) -> String {
    let mut writer = Writer { text: String::new(), objects: 0 };
    writer.text.push_str(concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
        "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n",
        "<topology version=\"2.0\">\n",
    ));
    let (all, nodes) = (bitmap(cpus), bitmap(&Idset::first_n(1)));
    let extra = format!(" allowed_cpuset=\"{all}\" allowed_nodeset=\"{nodes}\"");
    writer.object(1, "Machine", 0, cpus, &extra);
    let names = uname().ok().map(|names| {
        let text = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
        [
            ("OSName", text(names.sysname())),
            ("OSRelease", text(names.release())),
            ("HostName", text(names.nodename())),
            ("Architecture", text(names.machine())),
        ]
    });
    for (name, value) in names.iter().flatten() {
        let value = escape(value);
        let _ = writeln!(writer.text, "    <info name=\"{name}\" value=\"{value}\"/>");
    }
    writer.object(2, "NUMANode", 0, cpus, &format!(" local_memory=\"{memory}\""));
    writer.end(2);
    for (package, cores) in packages {
        let mut in_package = Idset::new();
        cores.iter().for_each(|(_, cpus)| in_package.union_with(cpus));
        writer.object(2, "Package", *package, &in_package, "");
        for (core, cpus) in cores {
            writer.object(3, "Core", *core, cpus, "");
            for cpu in cpus.iter() {
                writer.object(4, "PU", cpu, &Idset::from_iter([cpu]), "");
                writer.end(4);
            }
            writer.end(3);
        }
        writer.end(2);
    }
    writer.end(1);
    writer.text.push_str("</topology>\n");
    writer.text
}

struct Writer {
    text: String,
    objects: u32,
}

impl Writer {
    fn object(&mut self, depth: usize, kind: &str, index: u32, cpus: &Idset, extra: &str) {
        self.objects += 1;
        let (set, nodes, id) = (bitmap(cpus), bitmap(&Idset::first_n(1)), self.objects);
        let _ = writeln!(
            self.text,
            "{:indent$}<object type=\"{kind}\" os_index=\"{index}\" cpuset=\"{set}\" \
             complete_cpuset=\"{set}\" nodeset=\"{nodes}\" complete_nodeset=\"{nodes}\" \
             gp_index=\"{id}\"{extra}>",
            "",
            indent = 2 * depth
        );
    }

    fn end(&mut self, depth: usize) {
        let _ = writeln!(self.text, "{:indent$}</object>", "", indent = 2 * depth);
    }
}

/// hwloc's text of a set: words of 32 bits, the highest first.
fn bitmap(ids: &Idset) -> String {
    let count = ids.last().map_or(1, |last| last / 32 + 1);
    let word = |n: u32| {
        let bits = (0..32).filter(|bit| ids.contains(n * 32 + bit));
        format!("0x{:08x}", bits.fold(0u32, |word, bit| word | 1 << bit))
    };
    (0..count).rev().map(word).collect::<Vec<_>>().join(",")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_core_are_together() {
        let cpu = |package, core, cpu| Processor { package, core, cpu };
        let processors = [cpu(0, 0, 0), cpu(0, 4, 1), cpu(1, 0, 2), cpu(0, 0, 3), cpu(1, 0, 4)];
        let packages = packages(&processors);
        let ids = |text: &str| text.parse::<Idset>().unwrap();
        assert_eq!(packages.get(&0).unwrap(), &[(0, ids("0,3")), (4, ids("1"))]);
        assert_eq!(packages.get(&1).unwrap(), &[(0, ids("2,4"))]);
        let xml = write(&packages, &ids("0-4"), 1 << 30);
        let resources = super::super::xml::resources(&xml).unwrap();
        assert_eq!(resources.cores.to_string(), "0-2");
    }

    #[test]
    fn sets_are_written_in_words() {
        let bitmap = |text: &str| bitmap(&text.parse().unwrap());
        assert_eq!(bitmap("0-1"), "0x00000003");
        assert_eq!(bitmap("0,32-33"), "0x00000003,0x00000001");
        assert_eq!(bitmap(""), "0x00000000");
    }
}
