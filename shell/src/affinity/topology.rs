//! Cores of this machine as hwloc numbers them, read from /sys in a fraction of the time.

use std::fs;
use std::path::Path;

use flux_protocol::idset::Idset;

/// CPUs of each core, cores in logical order: by package, by shared cache, by first CPU. Only
/// CPUs of `allowed` count.
pub(super) fn cores(allowed: &Idset) -> Vec<Idset> {
    read(Path::new("/sys/devices/system/cpu"), allowed)
}

fn read(root: &Path, allowed: &Idset) -> Vec<Idset> {
    let mut seen = Idset::new();
    let mut packages: Vec<Idset> = Vec::new();
    let mut caches: Vec<Idset> = Vec::new();
    let mut cores: Vec<(u32, u32, Idset)> = Vec::new();
    for cpu in allowed.iter() {
        if seen.contains(cpu) {
            continue;
        }
        let group = |name: &str| list(&root.join(format!("cpu{cpu}/{name}")));
        let alone = || Idset::from_range(cpu, cpu);
        let core = group("topology/thread_siblings_list").unwrap_or_else(alone);
        seen.union_with(&core);
        let package = find(&mut packages, cpu, || group("topology/core_siblings_list"));
        let cache = find(&mut caches, cpu, || group("cache/index3/shared_cpu_list"));
        let core = core.intersect(allowed);
        cores.push((package, cache, if core.is_empty() { alone() } else { core }));
    }
    cores.sort_by_key(|(package, cache, core)| (*package, *cache, core.first()));
    cores.into_iter().map(|(_, _, core)| core).collect()
}

/// The first CPU of the group that `cpu` is in; of one group the file is read only once.
fn find(known: &mut Vec<Idset>, cpu: u32, read: impl FnOnce() -> Option<Idset>) -> u32 {
    if let Some(group) = known.iter().find(|group| group.contains(cpu)) {
        return group.first().unwrap_or(0);
    }
    match read() {
        Some(group) => {
            let first = group.first().unwrap_or(0);
            known.push(group);
            first
        }
        // Where there are no such groups, all are in one.
        None => 0,
    }
}

fn list(path: &Path) -> Option<Idset> {
    Idset::decode(fs::read_to_string(path).ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: &[(u32, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (cpu, threads, package) in cpus {
            let dir = root.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("thread_siblings_list"), format!("{threads}\n")).unwrap();
            fs::write(dir.join("core_siblings_list"), format!("{package}\n")).unwrap();
        }
        root
    }

    fn texts(cores: &[Idset]) -> Vec<String> {
        cores.iter().map(Idset::encode).collect()
    }

    #[test]
    fn cores_are_numbered_package_by_package() {
        // Two packages whose CPUs alternate, two threads to a core.
        let cpus: Vec<(u32, &str, &str)> = (0..8)
            .map(|cpu| {
                let threads = ["0,4", "1,5", "2,6", "3,7"][cpu as usize % 4];
                let package = ["0,2,4,6", "1,3,5,7"][cpu as usize % 2];
                (cpu, threads, package)
            })
            .collect();
        let root = machine(&cpus);
        let cores = read(root.path(), &Idset::first_n(8));
        assert_eq!(texts(&cores), ["0,4", "2,6", "1,5", "3,7"]);
        let cores = read(root.path(), &Idset::decode("2-5").unwrap());
        assert_eq!(texts(&cores), ["2", "4", "3", "5"]);
    }

    #[test]
    fn a_machine_that_tells_nothing_has_a_core_for_each_cpu() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(texts(&read(root.path(), &Idset::first_n(2))), ["0", "1"]);
    }
}
