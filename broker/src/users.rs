//! Users and groups as configurations name them.
//!
//! Names are resolved when somebody is looked for, so that changes of groups need no reload. One
//! that can't be resolved stands for nobody.

use flux_protocol::credential::Userid;
use nix::unistd::{Group, Uid, User};

/// Is this user named, or in one of the groups?
pub(crate) fn are_among(userid: Userid, users: &[String], groups: &[String]) -> bool {
    let uid = Uid::from_raw(userid.0);
    let named = |name: &String| User::from_name(name).ok().flatten().map(|user| user.uid);
    if users.iter().filter_map(named).any(|named| named == uid) {
        return true;
    }
    if groups.is_empty() {
        return false;
    }
    let Some(user) = User::from_uid(uid).ok().flatten() else { return false };
    let group = |name: &String| Group::from_name(name).ok().flatten();
    let mut groups = groups.iter().filter_map(group);
    groups.any(|group| group.gid == user.gid || group.mem.contains(&user.name))
}

/// For texts: the name, or the number where there is none.
pub(crate) fn name(userid: Userid) -> String {
    let user = User::from_uid(Uid::from_raw(userid.0)).ok().flatten();
    user.map_or_else(|| userid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_group_and_unknown_names_are_nobody() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let (nobody, root) = (names(&["no-such-user"]), names(&["no-such-user", "root"]));
        assert!(are_among(Userid(0), &root, &[]));
        assert!(!are_among(Userid(65534), &root, &root));
        assert!(!are_among(Userid(0), &nobody, &nobody));
        // The group that a user has by himself counts, too.
        assert!(are_among(Userid(0), &[], &root));
        assert_eq!(name(Userid(0)), "root");
    }
}
