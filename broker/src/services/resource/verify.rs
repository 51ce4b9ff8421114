//! Is what a node should have really there? (`resource.verify`)

use flux_protocol::idset::{Idset, Style};
use flux_protocol::r::{ResourceSet, Resources};
use serde_json::Value;

use super::hardware::Hardware;

/// How much a node may differ from what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Strict,
    AllowExtra,
    AllowMissing,
    Ignore,
}

/// The table `resource.verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    hostname: Mode,
    core: Mode,
    gpu: Mode,
    /// The configuration has the table.
    pub explicit: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("verify must be a table or boolean")]
    Type,
    #[error("verify.{0} mode must be a string")]
    ModeType(String),
    #[error("verify.{key}: unknown verify mode '{mode}'")]
    Mode { key: String, mode: String },
    #[error("verify: unsupported resource type: {0}")]
    Resource(String),
}

/// What is wrong with a node: the reason for which it is drained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("rank {0} not found in expected ranks")]
    Unexpected(u32),
    #[error("rank {rank} got hostname '{host}', expected '{expected}'")]
    Hostname { rank: u32, host: String, expected: String },
    #[error("rank {rank} ({host}) missing resources: {missing}")]
    Missing { rank: u32, host: String, missing: String },
    #[error("rank {rank} ({host}) has extra resources: {extra}")]
    Extra { rank: u32, host: String, extra: String },
}

// === impl Mode ===

impl Mode {
    fn parse(text: &str) -> Option<Mode> {
        Some(match text {
            "strict" => Mode::Strict,
            "allow-extra" => Mode::AllowExtra,
            "allow-missing" => Mode::AllowMissing,
            "ignore" => Mode::Ignore,
            _ => return None,
        })
    }

    fn minds_missing(self) -> bool {
        matches!(self, Mode::Strict | Mode::AllowExtra)
    }

    fn minds_extra(self) -> bool {
        matches!(self, Mode::Strict | Mode::AllowMissing)
    }
}

// === impl Verify ===

impl Verify {
    /// Without a table cores may be more than they should be, and GPUs are not looked at, since
    /// whether hwloc sees them depends on its plugins.
    pub fn parse(table: Option<&Value>) -> Result<Verify, VerifyError> {
        let table = match table {
            None => {
                return Ok(Verify {
                    hostname: Mode::Strict,
                    core: Mode::AllowExtra,
                    gpu: Mode::Ignore,
                    explicit: false,
                });
            }
            Some(Value::Bool(true)) => return Ok(Verify::all(Mode::Strict)),
            Some(Value::Bool(false)) => return Ok(Verify::all(Mode::Ignore)),
            Some(Value::Object(table)) => table,
            Some(_) => return Err(VerifyError::Type),
        };
        let mut default = Mode::Strict;
        let mut verify = [("hostname", None), ("core", None), ("gpu", None)];
        for (key, mode) in table {
            let mode = mode.as_str().ok_or_else(|| VerifyError::ModeType(key.clone()))?;
            let mode = Mode::parse(mode)
                .ok_or_else(|| VerifyError::Mode { key: key.clone(), mode: mode.to_owned() })?;
            match verify.iter_mut().find(|(name, _)| name == key) {
                Some((_, set)) => *set = Some(mode),
                None if key == "default" => default = mode,
                None => return Err(VerifyError::Resource(key.clone())),
            }
        }
        let [hostname, core, gpu] = verify.map(|(_, mode)| mode.unwrap_or(default));
        Ok(Verify { hostname, core, gpu, explicit: true })
    }

    fn all(mode: Mode) -> Verify {
        Verify { hostname: mode, core: mode, gpu: mode, explicit: true }
    }

    /// Compare the hardware of a rank with the inventory.
    pub fn check(
        &self,
        rank: u32,
        host: &str,
        hardware: &Hardware,
        inventory: &ResourceSet,
    ) -> Result<(), Mismatch> {
        let node = inventory.node(rank).ok_or(Mismatch::Unexpected(rank))?;
        if self.hostname == Mode::Strict && *node.host != *host {
            let (host, expected) = (host.to_owned(), node.host.to_string());
            return Err(Mismatch::Hostname { rank, host, expected });
        }
        let (expected, found) = (&node.resources, &hardware.resources);
        let missing = self.difference(expected, found, Mode::minds_missing);
        if !missing.is_empty() {
            let (host, missing) = (host.to_owned(), dumps(&missing));
            return Err(Mismatch::Missing { rank, host, missing });
        }
        let extra = self.difference(found, expected, Mode::minds_extra);
        if !extra.is_empty() {
            let (host, extra) = (host.to_owned(), dumps(&extra));
            return Err(Mismatch::Extra { rank, host, extra });
        }
        Ok(())
    }

    fn difference(&self, a: &Resources, b: &Resources, minds: fn(Mode) -> bool) -> Resources {
        let of = |mode, a: &Idset, b: &Idset| {
            if minds(mode) { a.difference(b) } else { Idset::new() }
        };
        Resources { cores: of(self.core, &a.cores, &b.cores), gpus: of(self.gpu, &a.gpus, &b.gpus) }
    }
}

/// `core[0-3],gpu0`
fn dumps(resources: &Resources) -> String {
    let style = Style { range: true, brackets: true };
    let kinds = [("core", &resources.cores), ("gpu", &resources.gpus)];
    let kinds = kinds.into_iter().filter(|(_, ids)| !ids.is_empty());
    let texts: Vec<_> =
        kinds.map(|(name, ids)| format!("{name}{}", ids.encode_with(style))).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::hostlist::Hostlist;
    use serde_json::json;

    fn resources(cores: &str, gpus: &str) -> Resources {
        Resources { cores: cores.parse().unwrap(), gpus: gpus.parse().unwrap() }
    }

    fn inventory(cores: &str, gpus: &str) -> ResourceSet {
        let hosts: Hostlist = "vm".parse().unwrap();
        ResourceSet::uniform(&Idset::first_n(1), resources(cores, gpus), &hosts).unwrap()
    }

    fn check(table: Option<Value>, has: Resources, should: &ResourceSet) -> Result<(), String> {
        let hardware = Hardware { resources: has, xml: String::new() };
        let verify = Verify::parse(table.as_ref()).unwrap();
        verify.check(0, "vm", &hardware, should).map_err(|mismatch| mismatch.to_string())
    }

    #[test]
    fn missing_cores_are_minded_and_extra_ones_are_not() {
        assert_eq!(
            check(None, resources("0-1", ""), &inventory("0-63", "0")),
            Err("rank 0 (vm) missing resources: core[2-63]".to_owned())
        );
        assert_eq!(check(None, resources("0-3", "0-1"), &inventory("0-1", "")), Ok(()));
    }

    #[test]
    fn modes_are_by_resource_and_the_default_is_strict() {
        let gpus = inventory("0-1", "0-3");
        assert_eq!(
            check(Some(json!(true)), resources("0-1", "0-1"), &gpus),
            Err("rank 0 (vm) missing resources: gpu[2-3]".to_owned())
        );
        let table = json!({"core": "allow-missing"});
        assert_eq!(check(Some(table.clone()), resources("0", "0-3"), &gpus), Ok(()));
        assert_eq!(
            check(Some(table), resources("0-2", "0-3"), &gpus),
            Err("rank 0 (vm) has extra resources: core2".to_owned())
        );
        assert_eq!(check(Some(json!(false)), resources("", ""), &gpus), Ok(()));
    }

    #[test]
    fn wrong_host_and_unknown_rank_are_named() {
        let hosts: Hostlist = "wronghost".parse().unwrap();
        let set = ResourceSet::uniform(&Idset::first_n(1), resources("0", ""), &hosts).unwrap();
        assert_eq!(
            check(None, resources("0", ""), &set),
            Err("rank 0 got hostname 'vm', expected 'wronghost'".to_owned())
        );
        assert_eq!(
            check(None, resources("0", ""), &ResourceSet::new()),
            Err("rank 0 not found in expected ranks".to_owned())
        );
    }

    #[test]
    fn bad_tables_are_refused() {
        let refusal = |table: Value| Verify::parse(Some(&table)).unwrap_err().to_string();
        assert_eq!(refusal(json!(3)), "verify must be a table or boolean");
        assert_eq!(refusal(json!({"core": 1})), "verify.core mode must be a string");
        assert_eq!(refusal(json!({"core": "x"})), "verify.core: unknown verify mode 'x'");
        assert_eq!(refusal(json!({"tpu": "strict"})), "verify: unsupported resource type: tpu");
    }
}
