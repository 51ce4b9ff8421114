//! `[access]`: who may connect, and as whom.

use flux_protocol::credential::{Credential, Rolemask};

use super::Config;
use super::table::{Table, TableError};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Users other than the owner connect as guests.
    pub allow_guest_user: bool,
    /// Root connects with the owner's role.
    pub allow_root_owner: bool,
    /// Guests see their own jobs only.
    pub private_mode: bool,
    /// Guests to whom private mode does not apply.
    pub admin: Role,
}

/// Who has a role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Role {
    pub users: Vec<String>,
    pub groups: Vec<String>,
}

impl Access {
    pub fn parse(config: &Config) -> Result<Access, TableError> {
        let mut table = Table::of(config, "access")?;
        let access = Access {
            allow_guest_user: table.bool("allow-guest-user")?.unwrap_or(false),
            allow_root_owner: table.bool("allow-root-owner")?.unwrap_or(false),
            private_mode: table.bool("private-mode")?.unwrap_or(false),
            admin: admin(table.table("roles")?)?,
        };
        table.finish()?;
        Ok(access)
    }

    /// In private mode guests see of jobs what is their own.
    pub fn hides_jobs_from(&self, cred: Credential) -> bool {
        self.private_mode && !cred.rolemask.intersects(Rolemask::OWNER.union(Rolemask::ADMIN))
    }
}

fn admin(mut roles: Table<'_>) -> Result<Role, TableError> {
    let mut table = roles.table("admin")?;
    let names = |list: Option<Vec<&str>>| list.into_iter().flatten().map(str::to_owned).collect();
    let role =
        Role { users: names(table.strings("users")?), groups: names(table.strings("groups")?) };
    table.finish()?;
    roles.finish()?;
    Ok(role)
}
