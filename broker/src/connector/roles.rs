//! Which guests have a role: by user name, or as listed member of a group.
//!
//! Names are resolved when somebody connects. One that can't be resolved gives nobody the role.

use flux_protocol::credential::Userid;
use nix::unistd::{Group, Uid, User};

use crate::config::access::Role;

pub(super) fn has(role: &Role, userid: Userid) -> bool {
    if role.is_empty() {
        return false;
    }
    let uid = Uid::from_raw(userid.0);
    let named = |name: &String| User::from_name(name).ok().flatten().map(|user| user.uid);
    if role.users.iter().filter_map(named).any(|named| named == uid) {
        return true;
    }
    let Some(user) = User::from_uid(uid).ok().flatten() else { return false };
    let members = |name: &String| Group::from_name(name).ok().flatten().map(|group| group.mem);
    role.groups.iter().filter_map(members).any(|members| members.contains(&user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_a_role_by_name_and_unknown_names_give_it_to_nobody() {
        let role = |users: &[&str]| Role {
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            groups: vec!["no-such-group".to_owned()],
        };
        assert!(has(&role(&["no-such-user", "root"]), Userid(0)));
        assert!(!has(&role(&["root"]), Userid(65534)));
        assert!(!has(&Role::default(), Userid(0)));
    }
}
