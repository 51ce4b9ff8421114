//! Who sent a message: user id and roles (RFC 12).

use std::fmt;

/// Numeric user id; [`Userid::UNKNOWN`] until a broker has stamped the message.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Userid(pub u32);

impl Userid {
    pub const UNKNOWN: Userid = Userid(u32::MAX);
}

impl fmt::Display for Userid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Userid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Userid({})", self.0)
    }
}

/// Set of roles that a message was sent with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rolemask(pub u32);

impl Rolemask {
    pub const NONE: Rolemask = Rolemask(0);
    pub const OWNER: Rolemask = Rolemask(1);
    pub const USER: Rolemask = Rolemask(2);
    /// The sender is connected to this very broker; removed when a message crosses the overlay.
    pub const LOCAL: Rolemask = Rolemask(4);
    /// A guest whom `access.roles.admin` exempts from private mode.
    pub const ADMIN: Rolemask = Rolemask(8);

    pub fn contains(self, roles: Rolemask) -> bool {
        self.0 & roles.0 == roles.0
    }

    pub fn intersects(self, roles: Rolemask) -> bool {
        self.0 & roles.0 != 0
    }

    pub fn union(self, roles: Rolemask) -> Rolemask {
        Rolemask(self.0 | roles.0)
    }

    pub fn without(self, roles: Rolemask) -> Rolemask {
        Rolemask(self.0 & !roles.0)
    }
}

impl fmt::Debug for Rolemask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rolemask({:#x})", self.0)
    }
}

/// The credential of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credential {
    pub userid: Userid,
    pub rolemask: Rolemask,
}

impl Credential {
    /// As clients send it: to be filled in by the broker that they are connected to.
    pub const UNSET: Credential = Credential { userid: Userid::UNKNOWN, rolemask: Rolemask::NONE };

    pub fn is_owner(self) -> bool {
        self.rolemask.contains(Rolemask::OWNER)
    }

    /// RFC 12: the instance owner, or the user that `userid` names.
    pub fn authorizes(self, userid: Userid) -> bool {
        self.is_owner() || (self.rolemask.contains(Rolemask::USER) && self.userid == userid)
    }
}
