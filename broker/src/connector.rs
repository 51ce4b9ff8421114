//! Local sockets: clients connect to `$RUNDIR/local-RANK` (AF_UNIX).
//!
//! Who a client is tells the kernel (SO_PEERCRED). The server's first byte is 0 or the errno of
//! the refusal; then messages flow in [`flux_protocol::frame`]s. A malformed frame closes that
//! connection and nothing else.

mod client;
mod writer;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use crate::broker::Broker;
use crate::config::Config;
use crate::log::Severity;

/// Whom the server lets in (`[access]` table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    pub allow_guest_user: bool,
    pub allow_root_owner: bool,
}

/// The listening socket; dropped, it stops listening. Connections stay until they close.
#[derive(Debug)]
pub struct Connector {
    path: PathBuf,
    shared: Rc<Shared>,
    accept: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    broker: Rc<Broker>,
    access: Cell<Access>,
    connects: Cell<u64>,
    clients: RefCell<Vec<String>>,
}

// === impl Access ===

impl Access {
    pub fn from_config(config: &Config) -> Access {
        Access {
            allow_guest_user: config.get_bool("access.allow-guest-user").unwrap_or(false),
            allow_root_owner: config.get_bool("access.allow-root-owner").unwrap_or(false),
        }
    }

    /// The credential of a client, or nothing when it may not connect.
    pub fn admit(self, owner: Userid, userid: Userid) -> Option<Credential> {
        let rolemask = if userid == owner || (userid.0 == 0 && self.allow_root_owner) {
            Rolemask::OWNER
        } else if self.allow_guest_user {
            Rolemask::USER
        } else {
            return None;
        };
        Some(Credential { userid, rolemask: rolemask.union(Rolemask::LOCAL) })
    }
}

// === impl Connector ===

impl Connector {
    /// Listen at `path`. Access is decided by who connects, so all may reach the socket.
    pub fn listen(broker: &Rc<Broker>, path: &Path) -> std::io::Result<Connector> {
        let listener = UnixListener::bind(path)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, mode)?;
        let shared = Rc::new(Shared {
            broker: broker.clone(),
            access: Cell::new(Access::from_config(&broker.config())),
            connects: Cell::new(0),
            clients: RefCell::default(),
        });
        let accept = tokio::task::spawn_local(accept(listener, shared.clone()));
        Ok(Connector { path: path.to_owned(), shared, accept })
    }

    /// Change who may connect; connections that are there stay.
    pub fn set_access(&self, access: Access) {
        self.shared.access.set(access);
    }

    pub fn access(&self) -> Access {
        self.shared.access.get()
    }

    /// Number of connections so far.
    pub fn connects(&self) -> u64 {
        self.shared.connects.get()
    }

    /// Uuids of the clients that are connected now.
    pub fn clients(&self) -> Vec<String> {
        self.shared.clients.borrow().clone()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.accept.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, shared: Rc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve(stream, shared.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: clients wait in the backlog meanwhile.
                shared.broker.log().append(
                    Severity::Err,
                    "connector-local",
                    &format!("accept: {error}"),
                );
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Admit one client, or send it away, and serve it until it closes.
async fn serve(mut stream: UnixStream, shared: Rc<Shared>) {
    let Ok(peer) = stream.peer_cred() else { return };
    let userid = Userid(peer.uid());
    let Some(cred) = shared.access.get().admit(shared.broker.owner(), userid) else {
        let text = format!("connect by uid={userid} pid={:?} denied", peer.pid().unwrap_or(0));
        shared.broker.log().append(Severity::Err, "connector-local", &text);
        let refusal = u8::try_from(Errno::EPERM.0).unwrap_or(1);
        let _ = stream.write_all(&[refusal]).await;
        return;
    };
    if stream.write_all(&[0]).await.is_err() {
        return;
    }
    shared.connects.set(shared.connects.get() + 1);
    let uuid = crate::router::new_uuid();
    let name = String::from_utf8_lossy(&uuid).into_owned();
    shared.clients.borrow_mut().push(name.clone());
    client::serve(stream, &shared.broker, uuid, cred).await;
    shared.clients.borrow_mut().retain(|client| *client != name);
}
