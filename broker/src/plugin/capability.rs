//! Capabilities: what a plugin may do beyond its kind's own callbacks.
//!
//! A capability is a name, in some cases with an argument: `drain`, `exec:perilog`,
//! `rpc:resource.drain`, `kvs.read:job.`, `event.publish:NAME`, `event:PREFIX`, `config:TABLE`,
//! `attr:NAME`, `file:KEY`, `jobspec:environment`. A trailing `*` stands for any rest. A plugin has those
//! that its manifest asks for and the configuration grants; asking for one that is not granted
//! keeps it from being loaded.

use super::v1::types::Effect;

/// An effect that stands for a request which the plugin may not make. With its tag, for who
/// carries out effects to answer it.
pub(crate) const REFUSED: &str = "refused";

/// Those that stand alone, and the beginnings of those with an argument.
const NAMES: [&str; 2] = ["drain", "jobspec:environment"];
const PREFIXES: [&str; 8] =
    ["attr:", "config:", "event.publish:", "event:", "exec:", "file:", "kvs.read:", "rpc:"];

/// Whether any capability is covered by a grant: others are slips of the administrator's hand.
pub(super) fn grants_something(grant: &str) -> bool {
    match grant.strip_suffix('*') {
        Some(start) => PREFIXES
            .iter()
            .chain(&NAMES)
            .any(|known| known.starts_with(start) || start.starts_with(known)),
        None => {
            NAMES.contains(&grant)
                || PREFIXES
                    .iter()
                    .any(|prefix| grant.len() > prefix.len() && grant.starts_with(prefix))
        }
    }
}

/// Whether a pattern covers a capability.
pub(super) fn covers(pattern: &str, capability: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => capability.starts_with(prefix),
        None => pattern == capability,
    }
}

/// The capabilities asked for, or the first one that is not granted.
pub(super) fn meet(asked: &[String], granted: &[String]) -> Result<Vec<String>, String> {
    let missing = asked.iter().find(|asked| !granted.iter().any(|grant| covers(grant, asked)));
    match missing {
        Some(capability) => Err(capability.clone()),
        None => Ok(asked.to_vec()),
    }
}

/// What an effect needs; none for what every plugin may do.
fn needed(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Rpc(call) => Some(format!("rpc:{}", call.topic)),
        Effect::KvsRead(query) => Some(format!("kvs.read:{}", query.key)),
        Effect::Exec(exec) => Some(format!("exec:{}", exec.command)),
        Effect::Drain(_) => Some("drain".to_owned()),
        Effect::Publish(publication) => Some(format!("event.publish:{}", publication.topic)),
        _ => None,
    }
}

/// The capability that an effect lacks.
pub(super) fn lacks(effect: &Effect, granted: &[String]) -> Option<String> {
    needed(effect).filter(|needed| !granted.iter().any(|grant| covers(grant, needed)))
}

/// What takes the place of an effect that lacks its capability: a plugin that asks for something
/// waits for the answer.
pub(super) fn refusal(effect: &Effect) -> Option<Effect> {
    let tag = match effect {
        Effect::Rpc(call) => call.tag,
        Effect::KvsRead(query) => query.tag,
        _ => return None,
    };
    Some(Effect::Other((REFUSED.to_owned(), tag.to_string())))
}

/// Arguments of the capabilities with this prefix: `config:` gives the tables.
pub(super) fn arguments<'a>(
    granted: &'a [String],
    prefix: &'a str,
) -> impl Iterator<Item = &'a str> + 'a {
    granted.iter().filter_map(move |capability| capability.strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::v1::types::{DrainNodes, RpcCall};

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_plugin_has_what_it_asks_for_and_is_granted() {
        let asked = owned(&["rpc:resource.drain", "drain"]);
        assert_eq!(meet(&asked, &owned(&["rpc:*", "drain", "exec:x"])), Ok(asked.clone()));
        assert_eq!(meet(&asked, &owned(&["rpc:*"])), Err("drain".to_owned()));
        assert_eq!(meet(&[], &[]), Ok(Vec::new()));
    }

    #[test]
    fn a_grant_of_nothing_known_is_found() {
        for grant in ["drain", "*", "rpc:*", "r*", "kvs.read:job.", "jobspec:environment", "file:a"]
        {
            assert!(grants_something(grant), "{grant}");
        }
        for grant in ["", "drian", "rpc", "rpc:", "kvs.write:job.", "bogus:x", "x*"] {
            assert!(!grants_something(grant), "{grant}");
        }
    }

    #[test]
    fn effects_beyond_the_grant_are_found() {
        let drain = Effect::Drain(DrainNodes { ranks: "0".into(), reason: String::new() });
        assert_eq!(lacks(&drain, &[]), Some("drain".to_owned()));
        assert_eq!(lacks(&drain, &owned(&["drain"])), None);
        let topic = "resource.status".to_owned();
        let rpc = Effect::Rpc(RpcCall { tag: 1, topic, nodeid: None, payload: "{}".into() });
        assert_eq!(lacks(&rpc, &owned(&["rpc:resource.*"])), None);
        assert_eq!(lacks(&Effect::ReprioritizeAll, &[]), None);
    }
}
