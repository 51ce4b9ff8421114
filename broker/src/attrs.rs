//! Broker attributes: small named values that clients can read.

pub mod known;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

/// What may be done with an attribute once the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Never changes: clients may cache it.
    Immutable,
    /// Changed by the broker alone.
    ReadOnly,
    /// The owner may set it at run time.
    Runtime,
}

#[derive(Debug, Clone)]
struct Attr {
    /// Known, but without a value, when `None`.
    value: Option<String>,
    access: Access,
}

/// All attributes of a broker.
#[derive(Debug, Default)]
pub struct Attrs {
    by_name: RefCell<BTreeMap<String, Attr>>,
    /// Names of those that the command line gave.
    given: RefCell<BTreeSet<String>>,
}

impl Attrs {
    /// The value, or nothing when it is unset or unknown.
    pub fn get(&self, name: &str) -> Option<String> {
        self.by_name.borrow().get(name)?.value.clone()
    }

    /// The name of this host; tests set the attribute or the environment to pretend another.
    pub fn hostname(&self) -> String {
        let pretended = || std::env::var("FLUX_FAKE_HOSTNAME").ok();
        self.get("hostname").or_else(pretended).unwrap_or_else(|| {
            nix::unistd::gethostname()
                .map_or("localhost".to_owned(), |name| name.to_string_lossy().into_owned())
        })
    }

    /// The directory with what outlives this instance; nothing when all goes away with it.
    pub fn kept_statedir(&self) -> Option<String> {
        let kept = self.get("statedir-cleanup").is_none_or(|cleanup| cleanup == "0");
        self.get("statedir").filter(|_| kept)
    }

    /// An attribute that is a duration (RFC 23). None: it is not set, or unlimited.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        let seconds = flux_protocol::fsd::parse(&self.get(name)?).ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The value as a number or another type with a text form.
    pub fn parse<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    pub fn access(&self, name: &str) -> Option<Access> {
        Some(self.by_name.borrow().get(name)?.access)
    }

    /// Those that have a value.
    pub fn names(&self) -> Vec<String> {
        let by_name = self.by_name.borrow();
        by_name
            .iter()
            .filter(|(_, attr)| attr.value.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Set by the command line, before the broker sets any.
    pub fn give(&self, name: &str, value: &str) {
        self.put(name, value, Access::ReadOnly);
        self.given.borrow_mut().insert(name.to_owned());
    }

    /// Whether the command line set it.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.borrow().contains(name)
    }

    /// Set by the broker itself, whatever the access.
    pub fn put(&self, name: &str, value: impl Into<String>, access: Access) {
        let attr = Attr { value: Some(value.into()), access };
        self.by_name.borrow_mut().insert(name.to_owned(), attr);
    }

    /// Give a known attribute a value unless the command line gave it one.
    pub fn put_default(&self, name: &str, value: impl Into<String>, access: Access) {
        let mut by_name = self.by_name.borrow_mut();
        let attr = by_name.entry(name.to_owned()).or_insert(Attr { value: None, access });
        attr.access = access;
        attr.value.get_or_insert_with(|| value.into());
    }

    /// Make an attribute known, with the value of the command line if it gave one.
    pub fn declare(&self, name: &str, access: Access) {
        let mut by_name = self.by_name.borrow_mut();
        by_name.entry(name.to_owned()).or_insert(Attr { value: None, access }).access = access;
    }

    /// Set by the owner. ENOENT: unknown. EINVAL: not settable at run time; EPERM: not even by
    /// force.
    pub fn set(&self, name: &str, value: &str, force: bool) -> Result<(), Failure> {
        let mut by_name = self.by_name.borrow_mut();
        if let Some((_, Some(access))) =
            known::FOREIGN.iter().find(|(prefix, _)| name.starts_with(prefix))
            && !by_name.contains_key(name)
        {
            // Anybody begins one; what may become of it is in its name.
            let value = Some(value.to_owned());
            by_name.insert(name.to_owned(), Attr { value, access: *access });
            return Ok(());
        }
        let attr = by_name
            .get_mut(name)
            .ok_or_else(|| Failure::new(Errno::ENOENT, "unknown attribute"))?;
        match attr.access {
            Access::Immutable if force => return Err(Errno::EPERM.into()),
            Access::Immutable | Access::ReadOnly if !force => {
                return Err(Failure::new(Errno::EINVAL, "attribute may not be updated"));
            }
            _ => attr.value = Some(value.to_owned()),
        }
        Ok(())
    }

    /// EPERM: not one that the owner may set. An unknown one is gone already.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        let mut by_name = self.by_name.borrow_mut();
        match by_name.get_mut(name) {
            None => {}
            // It stays known: it can be set again.
            Some(attr) if attr.access == Access::Runtime => attr.value = None,
            Some(_) => return Err(Errno::EPERM.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_of_a_foreign_attribute_is_in_its_name() {
        let attrs = Attrs::default();
        for name in ["test.a", "test-nr.a", "test-im.a"] {
            attrs.set(name, "1", false).unwrap();
        }
        attrs.set("test.a", "2", false).unwrap();
        assert_eq!(attrs.set("test-nr.a", "2", false).unwrap_err().errno, Errno::EINVAL);
        attrs.set("test-nr.a", "2", true).unwrap();
        assert_eq!(attrs.get("test-nr.a").as_deref(), Some("2"));
        assert_eq!(attrs.set("test-im.a", "2", true).unwrap_err().errno, Errno::EPERM);
        assert_eq!(attrs.set("other.a", "1", true).unwrap_err().errno, Errno::ENOENT);
    }
}
