//! PAM around a job of another user's: opened by root before the shell is started, so that the
//! shell inherits what modules set, and closed when the shell has ended.

#[cfg(feature = "pam")]
mod with {
    use crate::fatal::{Fatal, warn};
    use crate::sys::pam::{Failed, Session};

    pub(crate) const IS_BUILT_IN: bool = true;

    pub(crate) fn open(user: &str) -> Result<Session, Fatal> {
        Session::open(user).map_err(|Failed { call, why }| {
            warn(format!("{call}: {why}"));
            Fatal::new("exec: PAM stack failure")
        })
    }

    /// The job is over, and ends as it has ended.
    pub(crate) fn close(session: Session) {
        if let Err(Failed { call, why }) = session.close() {
            warn(format!("{call}: {why}"));
        }
    }
}

#[cfg(not(feature = "pam"))]
mod with {
    use crate::fatal::Fatal;

    pub(crate) const IS_BUILT_IN: bool = false;

    /// Nobody has one.
    pub(crate) enum Session {}

    pub(crate) fn open(_: &str) -> Result<Session, Fatal> {
        Err(Fatal::new("exec: PAM stack failure"))
    }

    pub(crate) fn close(session: Session) {
        match session {}
    }
}

pub(crate) use with::{IS_BUILT_IN, close, open};
