//! The attributes of a job that are there, by name.
//!
//! A hundred thousand jobs are held at a time, so this is as small as it can be: a sorted list
//! takes a third of the space of a map of JSON values.

use serde_json::Value;

/// Room that is made at a time.
const STEP: usize = 4;

#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    by_name: Vec<(&'static str, Value)>,
}

impl Attributes {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let at = self.find(name).ok()?;
        self.by_name.get(at).map(|(_, value)| value)
    }

    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        match self.find(name) {
            Ok(at) => {
                if let Some(slot) = self.by_name.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(at) => {
                if self.by_name.len() == self.by_name.capacity() {
                    self.by_name.reserve_exact(STEP);
                }
                self.by_name.insert(at, (name, value));
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.find(name).ok()?;
        Some(self.by_name.remove(at).1)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.by_name.binary_search_by(|(other, _)| (*other).cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NAMES: [&str; 5] = ["a", "ab", "b", "t_run", "t_submit"];

    proptest! {
        #[test]
        fn a_list_does_what_a_map_does(steps in prop::collection::vec((0_usize..5, prop::option::of(any::<u32>())), 0..40)) {
            let (mut list, mut map) = (Attributes::default(), BTreeMap::new());
            for (name, value) in steps {
                let name = NAMES[name];
                match value {
                    Some(value) => {
                        list.set(name, value.into());
                        map.insert(name, Value::from(value));
                    }
                    None => prop_assert_eq!(list.remove(name), map.remove(name)),
                }
                for name in NAMES {
                    prop_assert_eq!(list.get(name), map.get(name));
                }
            }
        }
    }
}
