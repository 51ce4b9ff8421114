//! Endpoints as an administrator writes them: `tcp://eth0:%p`, `tcp://%h:%p`.

/// Longest path of a local socket, without the NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Why text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("{0} has no URI scheme")]
    NoScheme(String),
    #[error("{0} contains 0MQ port wildcard")]
    PortWildcard(String),
    #[error("{0} socket path is empty")]
    NoPath(String),
    #[error("{0} socket path must not exceed {SOCKET_PATH_MAX} bytes")]
    PathTooLong(String),
    #[error("{0} address is empty")]
    NoAddress(String),
    #[error("{0} URI scheme must be tcp or ipc")]
    Scheme(String),
}

/// Substitute `%h` by the host, `%p` by the port, `%%` by a percent sign.
pub(super) fn expand(template: &str, host: &str, port: i64) -> String {
    let mut out = String::with_capacity(template.len() + host.len());
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('h') => out.push_str(host),
            Some('p') => out.push_str(&port.to_string()),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => {}
        }
    }
    out
}

/// Check an endpoint that all brokers must know before it is bound.
pub(super) fn check(uri: &str) -> Result<(), UriError> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(UriError::NoScheme(uri.to_owned()));
    };
    if uri.contains(":*") {
        return Err(UriError::PortWildcard(uri.to_owned()));
    }
    match scheme {
        "ipc" if rest.is_empty() => Err(UriError::NoPath(uri.to_owned())),
        "ipc" if rest.len() > SOCKET_PATH_MAX => Err(UriError::PathTooLong(uri.to_owned())),
        "tcp" if rest.is_empty() => Err(UriError::NoAddress(uri.to_owned())),
        "ipc" | "tcp" => Ok(()),
        _ => Err(UriError::Scheme(uri.to_owned())),
    }
}

/// Host and port of a `tcp://HOST:PORT` endpoint; an IPv6 address keeps its brackets.
pub(super) fn tcp_host_port(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix("tcp://")?.rsplit_once(':')
}

/// Write an IPv4 address in IPv6 form, as a socket for both is bound, in its own form.
pub(super) fn unmapped(uri: String) -> String {
    match uri.strip_prefix("tcp://[::ffff:").and_then(|rest| rest.split_once("]:")) {
        Some((address, port)) if address.contains('.') => format!("tcp://{address}:{port}"),
        _ => uri,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_substituted() {
        for (template, expected) in [
            ("tcp://%h:%p", "tcp://test1:8050"),
            ("tcp://eth0:%p", "tcp://eth0:8050"),
            ("ipc:///run/%h.%%", "ipc:///run/test1.%"),
            ("%x%", "%x"),
            ("", ""),
        ] {
            assert_eq!(expand(template, "test1", 8050), expected);
        }
    }

    #[test]
    fn mapped_addresses_are_written_as_their_own_kind() {
        for (uri, expected) in [
            ("tcp://[::ffff:10.0.0.1]:33955", "tcp://10.0.0.1:33955"),
            ("tcp://[2001:db8::1]:1", "tcp://[2001:db8::1]:1"),
            ("ipc:///x", "ipc:///x"),
        ] {
            assert_eq!(unmapped(uri.to_owned()), expected);
        }
    }

    #[test]
    fn endpoints_are_checked() {
        assert_eq!(check("tcp://*:8050"), Ok(()));
        assert_eq!(check("tcp://[::1]:9001"), Ok(()));
        let error = |uri: &str| check(uri).unwrap_err().to_string();
        assert_eq!(error("eth0:8050"), "eth0:8050 has no URI scheme");
        assert_eq!(error("tcp://eth0:*"), "tcp://eth0:* contains 0MQ port wildcard");
        assert_eq!(error("ipc://"), "ipc:// socket path is empty");
        assert_eq!(error("tcp://"), "tcp:// address is empty");
        assert_eq!(error("udp://h:1"), "udp://h:1 URI scheme must be tcp or ipc");
        let long = format!("ipc://{}", "x".repeat(108));
        assert!(error(&long).ends_with("socket path must not exceed 107 bytes"));
    }
}
