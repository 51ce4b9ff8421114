//! Where a broker is reached: `local://PATH`, or `ssh://[USER@]HOST[:PORT]/PATH`.

use std::path::PathBuf;
use std::str::FromStr;

/// A connector URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// A unix socket on this host.
    Local(PathBuf),
    /// A unix socket on another host, by way of a remote shell.
    Ssh {
        /// `HOST` or `USER@HOST`, as the remote shell takes it.
        target: String,
        port: Option<u16>,
        /// Absolute path on the other host.
        path: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("{0}: not a connector URI: expected local://PATH or ssh://HOST/PATH")]
    NoScheme(String),
    #[error("{uri}: unknown connector '{scheme}': expected local or ssh")]
    Scheme { uri: String, scheme: String },
    #[error("{0}: URI lacks a path")]
    NoPath(String),
    #[error("{0}: URI lacks a host")]
    NoHost(String),
    #[error("{0}: bad port number in URI")]
    Port(String),
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Uri, UriError> {
        let (scheme, rest) =
            uri.trim().split_once("://").ok_or_else(|| UriError::NoScheme(uri.to_owned()))?;
        match scheme {
            "local" if rest.is_empty() => Err(UriError::NoPath(uri.to_owned())),
            "local" => Ok(Uri::Local(PathBuf::from(rest))),
            "ssh" => parse_ssh(uri, rest),
            _ => Err(UriError::Scheme { uri: uri.to_owned(), scheme: scheme.to_owned() }),
        }
    }
}

fn parse_ssh(uri: &str, rest: &str) -> Result<Uri, UriError> {
    let (authority, path) = rest.split_once('/').ok_or_else(|| UriError::NoPath(uri.to_owned()))?;
    if path.is_empty() {
        return Err(UriError::NoPath(uri.to_owned()));
    }
    let (target, port) = match authority.rsplit_once(':') {
        Some((target, port)) => {
            (target, Some(port.parse().map_err(|_| UriError::Port(uri.to_owned()))?))
        }
        None => (authority, None),
    };
    // A host that starts with a dash would be an option to the remote shell.
    if target.is_empty() || target.ends_with('@') || target.starts_with('-') {
        return Err(UriError::NoHost(uri.to_owned()));
    }
    Ok(Uri::Ssh { target: target.to_owned(), port, path: format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_and_ssh_uris_are_understood() {
        assert_eq!("local:///run/x".parse(), Ok(Uri::Local(PathBuf::from("/run/x"))));
        assert_eq!(
            "ssh://me@host:22/run/x".parse(),
            Ok(Uri::Ssh {
                target: "me@host".to_owned(),
                port: Some(22),
                path: "/run/x".to_owned()
            })
        );
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bad in ["", "/run/x", "local://", "tcp://x/y", "ssh://host", "ssh://host/", "ssh:///x"]
        {
            assert!(bad.parse::<Uri>().is_err(), "{bad}");
        }
        assert!("ssh://-oProxyCommand=x/y".parse::<Uri>().is_err());
        assert!("ssh://h:port/y".parse::<Uri>().is_err());
    }
}
