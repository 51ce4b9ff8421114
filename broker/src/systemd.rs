//! What systemd is told of the broker (sd_notify(3)), where the attribute `broker.sd-notify` asks
//! for it.

use std::cell::Cell;
use std::time::Duration;

use crate::attrs::Attrs;
use crate::state::State;

pub(crate) struct Systemd {
    /// `broker.sd-stop-timeout`: what the unit's `TimeoutStopSec` is. Each state on the way down
    /// has so long.
    stop_timeout: Option<Duration>,
    stopping: Cell<bool>,
}

/// The broker that is told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) attrs: &'a Attrs,
}

impl Systemd {
    pub(crate) fn new(attrs: &Attrs) -> Option<Systemd> {
        let wanted = attrs.get("broker.sd-notify").is_some_and(|value| value != "0");
        let stop_timeout = attrs.duration("broker.sd-stop-timeout");
        wanted.then_some(Systemd { stop_timeout, stopping: Cell::new(false) })
    }

    /// A state has begun.
    pub(crate) fn entered(&self, member: Member<'_>, state: State) {
        if state >= State::Cleanup && !self.stopping.replace(true) {
            send("STOPPING=1");
        }
        send(&news(member, state));
        let attrs = member.attrs;
        let own_limit = match state {
            State::Cleanup => attrs.duration("broker.cleanup-timeout"),
            State::Shutdown => attrs.duration("broker.shutdown-timeout"),
            _ => None,
        };
        self.extend(own_limit.unwrap_or_default());
    }

    /// What goes on in a state; it shows that the broker has not stopped to work.
    pub(crate) fn status(&self, text: &str) {
        self.extend(Duration::ZERO);
        send(&format!("STATUS={text}"));
    }

    /// Once it stops: not to be killed before so long from now.
    fn extend(&self, beyond: Duration) {
        if let (true, Some(limit)) = (self.stopping.get(), self.stop_timeout) {
            let limit = limit.saturating_add(beyond);
            send(&format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros()));
        }
    }
}

fn news(Member { rank, size, attrs }: Member<'_>, state: State) -> String {
    match state {
        // The parent may not come for days: to wait for it is what a follower is started for.
        State::Join if rank > 0 => {
            let parent = attrs.get("tbon.parent-endpoint").unwrap_or_default();
            format!("READY=1\nSTATUS=Joining Flux instance via {parent}")
        }
        State::Quorum => "STATUS=Waiting for instance quorum".to_owned(),
        State::Run => {
            let role = if rank == 0 { "leader" } else { "member" };
            format!("READY=1\nSTATUS=Running as {role} of {size} node Flux instance")
        }
        State::Shutdown => "STATUS=Waiting for overlay peers to shutdown".to_owned(),
        State::Exit => "STATUS=Exiting".to_owned(),
        state => format!("STATUS=Entering {}", state.name()),
    }
}

/// A datagram to `$NOTIFY_SOCKET`; without one there is nobody to tell.
fn send(text: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        // Rather not told than stopped by a reader that does not read.
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to_addr(text.as_bytes(), &address);
    }
}
