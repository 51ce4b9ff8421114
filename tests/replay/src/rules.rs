//! What may differ between a captured conversation and one that is played.

use std::fmt;

type Text = Box<dyn Fn(&str) -> String>;

/// How to compare; see the methods. Keys are either a name (`pid`), which stands for every key of
/// that name at any depth, or a path from the payload's root (`mods.*.idle`), in which `*` stands
/// for one key or array index.
#[derive(Default)]
pub struct Rules {
    pub(crate) any: Vec<String>,
    pub(crate) bind: Vec<String>,
    pub(crate) optional: Vec<String>,
    pub(crate) unordered: Vec<String>,
    pub(crate) places: Vec<(String, String)>,
    pub(crate) text: Option<Text>,
    pub(crate) rank: Option<u32>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("any", &self.any).field("bind", &self.bind).finish()
    }
}

impl Rules {
    /// The value may be any of the same JSON type.
    pub fn any(mut self, key: &str) -> Rules {
        self.any.push(key.to_owned());
        self
    }

    /// The value is chosen by the broker: any of the same type at first, from then on the same
    /// wherever the captured conversation has the same. Put into later requests, too; strings also
    /// where they are part of a longer string or of a topic.
    pub fn bind(mut self, key: &str) -> Rules {
        self.bind.push(key.to_owned());
        self
    }

    /// The key may be there or not, with any value.
    pub fn optional(mut self, key: &str) -> Rules {
        self.optional.push(key.to_owned());
        self
    }

    /// Responses of one stream with this topic may come in another order, as output of a process
    /// does.
    pub fn unordered(mut self, topic: &str) -> Rules {
        self.unordered.push(topic.to_owned());
        self
    }

    /// A placeholder of the files, such as `$RUNDIR`, and what it stands for now.
    pub fn place(mut self, placeholder: &str, value: &str) -> Rules {
        self.places.push((placeholder.to_owned(), value.to_owned()));
        self
    }

    /// Applied to both sides of every text before they are compared.
    pub fn text(mut self, normalize: impl Fn(&str) -> String + 'static) -> Rules {
        self.text = Some(Box::new(normalize));
        self
    }

    /// Address requests for particular ranks to this rank instead, for a broker that is alone.
    pub fn at_rank(mut self, rank: u32) -> Rules {
        self.rank = Some(rank);
        self
    }
}

/// Does `path`, the keys from the root, fall under one of `patterns`?
pub(crate) fn covers(patterns: &[String], path: &[String]) -> bool {
    patterns.iter().any(|pattern| {
        if !pattern.contains('.') {
            return path.last() == Some(pattern);
        }
        let mut keys = path.iter();
        let matched = pattern
            .split('.')
            .all(|want| keys.next().is_some_and(|key| want == "*" || want == key));
        matched && keys.next().is_none()
    })
}
