//! The environment that commands of the broker start with.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// The process environment with the changes that `broker.setenv` made.
///
/// The changes are kept beside the process environment: to change that one is not safe in a
/// process with threads.
#[derive(Debug, Default)]
pub struct Environment {
    /// Nothing is an unset variable.
    changes: RefCell<BTreeMap<String, Option<String>>>,
}

impl Environment {
    /// A variable; nothing when it is unset or not UTF-8.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.changes.borrow().get(name) {
            Some(change) => change.clone(),
            None => std::env::var(name).ok(),
        }
    }

    pub fn set(&self, name: &str, value: Option<String>) {
        self.changes.borrow_mut().insert(name.to_owned(), value);
    }

    /// All variables that are UTF-8.
    pub fn vars(&self) -> BTreeMap<String, String> {
        let mut vars: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        for (name, change) in self.changes.borrow().iter() {
            match change {
                Some(value) => vars.insert(name.clone(), value.clone()),
                None => vars.remove(name),
            };
        }
        vars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_stand_above_the_process_environment() {
        let environment = Environment::default();
        assert_eq!(environment.get("PATH"), std::env::var("PATH").ok());
        environment.set("PATH", None);
        environment.set("FLUX_TEST_NEW", Some("1".to_owned()));
        assert_eq!(environment.get("PATH"), None);
        assert!(!environment.vars().contains_key("PATH"));
        assert_eq!(environment.vars().get("FLUX_TEST_NEW").map(String::as_str), Some("1"));
    }
}
