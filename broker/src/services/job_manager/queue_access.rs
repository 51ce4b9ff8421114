//! `policy.access`: whose jobs a queue takes (RFC 33).

use std::collections::BTreeMap;

use flux_protocol::credential::Userid;
use flux_protocol::failure::Failure;

use crate::config::Config;
use crate::config::policy::{Policy, QueueAccess};
use crate::config::queues::Queues;
use crate::users;

/// Who may submit: to each queue, and to those that do not say. The owner always may.
#[derive(Debug)]
pub(super) struct Admission {
    owner: u32,
    general: QueueAccess,
    queues: BTreeMap<String, QueueAccess>,
}

impl Admission {
    pub(super) fn from_config(config: &Config, owner: u32) -> Result<Admission, Failure> {
        let by_name = Queues::parse(config)?.by_name;
        let of = |name: &str| by_name.get(name).map(|queue| &queue.policy.access);
        let queues = by_name
            .iter()
            .filter_map(|(name, queue)| {
                let parents = || of(queue.parent.as_deref()?);
                let access = Some(&queue.policy.access).filter(|access| restricts(access));
                let access = access.or_else(|| parents().filter(|access| restricts(access)))?;
                Some((name.clone(), access.clone()))
            })
            .collect();
        Ok(Admission { owner, general: Policy::parse(config)?.access, queues })
    }

    /// The text says why not.
    pub(super) fn check(&self, userid: u32, queue: Option<&str>) -> Result<(), String> {
        let access = queue.and_then(|queue| self.queues.get(queue)).unwrap_or(&self.general);
        let names = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
        let user = Userid(userid);
        if userid == self.owner
            || !restricts(access)
            || users::are_among(user, &names(&access.allow_user), &names(&access.allow_group))
        {
            return Ok(());
        }
        let whose = match queue.filter(|&queue| self.queues.contains_key(queue)) {
            Some(queue) => format!("queue {queue}"),
            None => "policy.access".to_owned(),
        };
        Err(format!("user {} is not among those whose jobs {whose} allows", users::name(user)))
    }
}

fn restricts(access: &QueueAccess) -> bool {
    access.allow_user.is_some() || access.allow_group.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(toml: &str) -> Admission {
        let value: serde_json::Value = toml::from_str(toml).unwrap();
        let config = Config::from_object(value.as_object().unwrap().clone());
        Admission::from_config(&config, 1000).unwrap()
    }

    #[test]
    fn a_queues_own_list_goes_before_its_parents_and_the_general_one() {
        let admission = admission(
            "[policy.access]\nallow-user = [\"no-such-user\"]\n\
             [queues.open.policy.access]\nallow-group = [\"root\"]\n\
             [queues.below]\nparent = \"open\"\n\
             [queues.closed]\n",
        );
        assert_eq!(admission.check(0, Some("open")), Ok(()));
        assert_eq!(admission.check(0, Some("below")), Ok(()));
        let refused = admission.check(0, Some("closed")).unwrap_err();
        assert_eq!(refused, "user root is not among those whose jobs policy.access allows");
        assert_eq!(admission.check(1000, Some("closed")), Ok(()));
        let refused = admission.check(65_533, Some("open")).unwrap_err();
        assert_eq!(refused, "user 65533 is not among those whose jobs queue open allows");
    }

    #[test]
    fn without_a_list_everybody_may_and_with_an_empty_one_nobody() {
        assert_eq!(admission("").check(0, None), Ok(()));
        assert!(admission("[policy.access]\nallow-user = []\n").check(0, None).is_err());
    }
}
