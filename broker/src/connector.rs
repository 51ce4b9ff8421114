//! Local sockets: clients connect to `$RUNDIR/local-RANK` (AF_UNIX).
//!
//! Who a client is tells the kernel (SO_PEERCRED). The server's first byte is 0 or the errno of
//! the refusal; then messages flow in [`flux_protocol::frame`]s. A malformed frame closes that
//! connection and nothing else.

mod client;
pub mod status;
mod writer;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use crate::broker::Broker;
use crate::config::access::Access;
use crate::log::Severity;
use crate::users;
use status::Status;

/// The listening socket; dropped, it stops listening. Connections stay until they close.
#[derive(Debug)]
pub struct Connector {
    path: PathBuf,
    accept: tokio::task::JoinHandle<()>,
}

/// The credential of a client, or nothing when it may not connect.
fn admit(access: &Access, owner: Userid, userid: Userid) -> Option<Credential> {
    let rolemask = if userid == owner || (userid.0 == 0 && access.allow_root_owner) {
        Rolemask::OWNER
    } else if !access.allow_guest_user {
        return None;
    } else if users::are_among(userid, &access.admin.users, &access.admin.groups) {
        Rolemask::USER.union(Rolemask::ADMIN)
    } else {
        Rolemask::USER
    };
    Some(Credential { userid, rolemask: rolemask.union(Rolemask::LOCAL) })
}

// === impl Connector ===

impl Connector {
    /// Listen at `path`. Access is decided by who connects, so all may reach the socket.
    pub fn listen(broker: &Rc<Broker>, path: &Path) -> std::io::Result<Connector> {
        let listener = UnixListener::bind(path)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, mode)?;
        let status = broker.connector_status().clone();
        // A wrong table is refused where the configuration is read.
        status.set_access(Access::parse(&broker.config()).unwrap_or_default());
        let accept = tokio::task::spawn_local(accept(listener, broker.clone(), status));
        Ok(Connector { path: path.to_owned(), accept })
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.accept.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, broker: Rc<Broker>, status: Rc<Status>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve(stream, broker.clone(), status.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: clients wait in the backlog meanwhile.
                broker.log().append(Severity::Err, "connector-local", &format!("accept: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Admit one client, or send it away, and serve it until it closes.
async fn serve(mut stream: UnixStream, broker: Rc<Broker>, status: Rc<Status>) {
    let Ok(peer) = stream.peer_cred() else { return };
    let userid = Userid(peer.uid());
    let Some(cred) = admit(&status.access(), broker.owner(), userid) else {
        let text = format!("connect by uid={userid} pid={:?} denied", peer.pid().unwrap_or(0));
        broker.log().append(Severity::Err, "connector-local", &text);
        let refusal = u8::try_from(Errno::EPERM.0).unwrap_or(1);
        let _ = stream.write_all(&[refusal]).await;
        return;
    };
    if stream.write_all(&[0]).await.is_err() {
        return;
    }
    status.connects.set(status.connects.get() + 1);
    let uuid = crate::router::new_uuid();
    let name = String::from_utf8_lossy(&uuid).into_owned();
    status.clients.borrow_mut().push(name.clone());
    client::serve(stream, &broker, uuid, cred).await;
    status.clients.borrow_mut().retain(|client| *client != name);
}
