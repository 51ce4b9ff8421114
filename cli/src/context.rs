//! What every command gets besides its arguments.

use std::ffi::OsString;

use flux_client::{Client, OpenError};
use flux_protocol::errno::Errno;
use flux_protocol::layout::Layout;

use crate::environment::Environment;
use crate::failure::Failure;

#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub env: Environment,
    pub layout: Layout,
    /// Arguments of the command, as they were given.
    pub(crate) args: Vec<OsString>,
    /// Name in front of a failure to connect.
    pub(crate) open_prefix: String,
}

impl Context {
    /// Connect to the instance that the environment names, else to the system instance.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let uri = self.env.get("FLUX_URI").map(str::to_owned);
        Client::open(Some(&uri.unwrap_or_else(flux_client::default_uri)))
            .await
            .map_err(|error| open_failure(&error).prefix(self.open_prefix.clone()))
    }

    /// Connect to the instance at `uri`.
    pub(crate) async fn connect_to(&self, uri: &str) -> Result<Client, Failure> {
        Client::open(Some(uri))
            .await
            .map_err(|error| open_failure(&error).prefix(self.open_prefix.clone()))
    }

    /// A URI that the instance has told, as it is to be used from here: below `flux proxy` to
    /// another host its sockets are over there.
    pub(crate) fn seen_from_here(&self, uri: String) -> String {
        through_proxy(self.env.get("FLUX_PROXY_REMOTE"), uri)
    }
}

fn through_proxy(remote: Option<&str>, uri: String) -> String {
    match (remote, uri.strip_prefix("local://")) {
        (Some(remote), Some(path)) => format!("ssh://{remote}{path}"),
        _ => uri,
    }
}

/// The errno in words, as programs expect it, and where there is more to say, that too.
fn open_failure(error: &OpenError) -> Failure {
    let detail = match error {
        OpenError::NotFound(path) => {
            format!(" (no broker at {}; FLUX_URI names another)", path.display())
        }
        OpenError::Connect { path, errno: Errno::ECONNREFUSED } => {
            format!(" (the broker at {} is not running)", path.display())
        }
        OpenError::Connect { path, .. } => format!(" ({})", path.display()),
        OpenError::Refused(Errno::EPERM) => " (this instance admits its owner only)".to_owned(),
        OpenError::Refused(_) => String::new(),
        error => format!(" ({error})"),
    };
    Failure::new(format_args!("flux_open: {}{detail}", error.errno()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_behind_a_proxy_is_on_the_host_of_the_proxy() {
        let through = |remote, uri: &str| through_proxy(remote, uri.to_owned());
        assert_eq!(through(Some("u@h"), "local:///run/x"), "ssh://u@h/run/x");
        assert_eq!(through(Some("u@h"), "ssh://other/run/x"), "ssh://other/run/x");
        assert_eq!(through(None, "local:///run/x"), "local:///run/x");
    }
}
