//! The attributes of a jobspec, reached by dotted keys.

use super::Jobspec;
use serde_json::{Map, Value};
use std::borrow::Cow;

impl Jobspec {
    /// The attribute at a key such as `duration`, `system.job.name`, `user.x` or
    /// `attributes.system.cwd`: what begins with none of these is below `system`.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        full_key(key).split('.').try_fold(&self.document, |value, part| value.get(part))
    }

    /// Set an attribute, making the objects on the way to it. Values on the way that are no objects
    /// are replaced.
    pub fn set_attribute(&mut self, key: &str, value: Value) {
        let mut here = &mut self.document;
        for part in full_key(key).split('.') {
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            let Value::Object(object) = here else { return };
            here = object.entry(part).or_insert(Value::Null);
        }
        *here = value;
    }

    /// Remove an attribute and return it.
    pub fn remove_attribute(&mut self, key: &str) -> Option<Value> {
        let key = full_key(key);
        let (parent, name) = key.rsplit_once('.')?;
        let parent = parent.split('.').try_fold(&mut self.document, |value, p| value.get_mut(p));
        let object = parent?.as_object_mut()?;
        let removed = object.get_mut(name)?.take();
        // `remove` may put the last key into the gap; plugins have no `shift_remove`.
        object.retain(|key, _| key != name);
        Some(removed)
    }

    /// A shell option, by its dotted name.
    pub fn shell_option(&self, name: &str) -> Option<&Value> {
        self.attribute(&format!("shell.options.{name}"))
    }

    pub fn set_shell_option(&mut self, name: &str, value: Value) {
        self.set_attribute(&format!("shell.options.{name}"), value);
    }

    /// Time limit in seconds; 0 means none.
    pub fn duration(&self) -> f64 {
        self.attribute("duration").and_then(Value::as_f64).unwrap_or_default()
    }

    pub fn queue(&self) -> Option<&str> {
        self.text("queue")
    }

    pub fn bank(&self) -> Option<&str> {
        self.text("bank")
    }

    pub fn cwd(&self) -> Option<&str> {
        self.text("cwd")
    }

    /// The name that the user gave to the job.
    pub fn job_name(&self) -> Option<&str> {
        self.text("job.name")
    }

    /// Environment variables of the tasks.
    pub fn environment(&self) -> Option<&Map<String, Value>> {
        self.attribute("environment")?.as_object()
    }

    /// RFC 26 dependencies.
    pub fn dependencies(&self) -> &[Value] {
        self.attribute("dependencies").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// RFC 31 constraints: see [`crate::constraint::Constraint::decode`].
    pub fn constraints(&self) -> Option<&Value> {
        self.attribute("constraints")
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.attribute(key)?.as_str()
    }
}

fn full_key(key: &str) -> Cow<'_, str> {
    if key.starts_with("attributes.") {
        Cow::Borrowed(key)
    } else if key.starts_with("user.") || key.starts_with("system.") {
        Cow::Owned(format!("attributes.{key}"))
    } else {
        Cow::Owned(format!("attributes.system.{key}"))
    }
}
