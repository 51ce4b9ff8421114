//! Addresses of this host's network interfaces.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::uri::tcp_host_port;

/// Why there is no address to listen at.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    #[error("getifaddrs: {0}")]
    System(#[from] nix::Error),
    #[error("could not find address associated with {0}")]
    NotFound(String),
    #[error("could not find address of {host}: {error}")]
    Resolve { host: String, error: std::io::Error },
    #[error("{uri}: {name} is neither an address nor an interface of this host")]
    NoInterface { uri: String, name: String },
    #[error("{0}: IPv6 is off; set bootstrap.enable_ipv6 = true")]
    Ipv6Off(String),
}

/// Which address other hosts are to use (`tbon.interface-hint`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// That of the interface with the default route, else as `Hostname`.
    DefaultRoute,
    /// The one that the host's name resolves to.
    Hostname,
    /// That of an interface, or the one in a network such as `10.0.0.0/8`.
    Named(String),
}

impl From<&str> for Hint {
    fn from(text: &str) -> Hint {
        match text {
            "default-route" => Hint::DefaultRoute,
            "hostname" => Hint::Hostname,
            name => Hint::Named(name.to_owned()),
        }
    }
}

/// The address to tell to others.
pub(super) fn primary_address(hint: &Hint, prefer_v6: bool) -> Result<IpAddr, InterfaceError> {
    match hint {
        Hint::Named(name) => {
            named_address(name, prefer_v6)?.ok_or_else(|| InterfaceError::NotFound(name.clone()))
        }
        Hint::Hostname => host_address(prefer_v6),
        Hint::DefaultRoute => {
            let by_route = default_route_interface(Path::new("/proc/net/route"))
                .and_then(|name| named_address(&name, prefer_v6).ok().flatten());
            by_route.map_or_else(|| host_address(prefer_v6), Ok)
        }
    }
}

/// Replace the interface name in a `tcp://NAME:PORT` endpoint by its address.
pub(super) fn resolve_bind(uri: &str, prefer_v6: bool) -> Result<String, InterfaceError> {
    let Some((host, port)) = tcp_host_port(uri) else { return Ok(uri.to_owned()) };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        // Of libzmq's own error nobody would guess what to do.
        Ok(IpAddr::V6(_)) if !prefer_v6 => return Err(InterfaceError::Ipv6Off(uri.to_owned())),
        Ok(_) => return Ok(uri.to_owned()),
        Err(_) if host == "*" => return Ok(uri.to_owned()),
        Err(_) => {}
    }
    match named_address(host, prefer_v6)? {
        Some(address) => Ok(format!("tcp://{}:{port}", bracketed(address))),
        None => Err(InterfaceError::NoInterface { uri: uri.to_owned(), name: host.to_owned() }),
    }
}

/// As it stands in a URI.
pub(super) fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The address of an interface, of the other family if there is none of the preferred one.
fn named_address(name: &str, prefer_v6: bool) -> Result<Option<IpAddr>, InterfaceError> {
    let all: Vec<(String, IpAddr)> = getifaddrs()?
        .filter_map(|interface| Some((interface.interface_name, address(interface.address?)?)))
        .filter(|(_, address)| !is_link_local(address))
        .collect();
    let of = |v6| all.iter().find(|(n, address)| n == name && address.is_ipv6() == v6);
    let exact = of(prefer_v6).or_else(|| of(!prefer_v6)).map(|(_, address)| *address);
    Ok(exact.or_else(|| {
        let network = Network::parse(name)?;
        all.iter().map(|(_, address)| *address).find(|address| network.contains(address))
    }))
}

fn address(address: SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

/// Link-local addresses mean nothing without an interface, which other hosts have others of.
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn host_address(prefer_v6: bool) -> Result<IpAddr, InterfaceError> {
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let found = (host.as_str(), 0)
        .to_socket_addrs()
        .map_err(|error| InterfaceError::Resolve { host: host.clone(), error })?;
    let all: Vec<IpAddr> = found.map(|found| found.ip()).filter(|a| !is_link_local(a)).collect();
    let preferred = all.iter().find(|address| address.is_ipv6() == prefer_v6);
    preferred.or(all.first()).copied().ok_or(InterfaceError::NotFound(host))
}

/// The interface of the kernel's table of routes (proc(5)) that leads everywhere.
fn default_route_interface(routes: &Path) -> Option<String> {
    let table = std::fs::read_to_string(routes).ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| name.to_owned())
    })
}

/// An IPv4 network.
struct Network {
    bits: u32,
    mask: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let bits = u32::from(address.parse::<Ipv4Addr>().ok()?) & mask;
        Some(Network { bits, mask })
    }

    fn contains(&self, address: &IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if u32::from(*v4) & self.mask == self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_become_addresses() {
        assert_eq!(resolve_bind("tcp://lo:8050", false).unwrap(), "tcp://127.0.0.1:8050");
        for same in ["tcp://*:8050", "tcp://127.0.0.2:1", "ipc:///run/x"] {
            assert_eq!(resolve_bind(same, false).unwrap(), same);
        }
        assert_eq!(resolve_bind("tcp://[::1]:1", true).unwrap(), "tcp://[::1]:1");
        assert_eq!(
            resolve_bind("tcp://[::1]:1", false).unwrap_err().to_string(),
            "tcp://[::1]:1: IPv6 is off; set bootstrap.enable_ipv6 = true"
        );
        assert_eq!(
            resolve_bind("tcp://nosuch0:8050", false).unwrap_err().to_string(),
            "tcp://nosuch0:8050: nosuch0 is neither an address nor an interface of this host"
        );
    }

    #[test]
    fn hint_may_be_an_interface_or_a_network() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for hint in ["lo", "127.0.0.0/8", "127.0.0.1"] {
            assert_eq!(primary_address(&Hint::from(hint), false).unwrap(), loopback);
        }
        for hint in ["nosuch0", "240.0.0.0/8", "127.0.0.0/33"] {
            let error = primary_address(&Hint::from(hint), false).unwrap_err().to_string();
            assert_eq!(error, format!("could not find address associated with {hint}"));
        }
    }

    #[test]
    fn default_route_is_the_one_to_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("route");
        let table = "Iface\tDestination\tGateway\neth1\t0000A8C0\t0\neth0\t00000000\t0100A8C0\n";
        std::fs::write(&path, table).unwrap();
        assert_eq!(default_route_interface(&path).as_deref(), Some("eth0"));
        assert_eq!(default_route_interface(&dir.path().join("none")), None);
    }
}
