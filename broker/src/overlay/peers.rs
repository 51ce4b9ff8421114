//! What the state machine waits for.

use std::time::Duration;

use flux_protocol::idset::Idset;

use super::{Overlay, Uplink};
use crate::peers::{LocalFuture, Peers};

/// A parent that does not answer a goodbye for so long does not notice it either.
const GOODBYE_LIMIT: Duration = Duration::from_secs(60);
/// The same for a hello. A broker that is to stop before it has joined has nothing to lose but a
/// moment.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

impl Peers for Overlay {
    fn joined(&self) -> LocalFuture<Result<(), String>> {
        let mut uplink = self.uplink();
        Box::pin(async move {
            let settled = uplink.wait_for(|uplink| *uplink != Uplink::Joining).await;
            match settled.as_deref() {
                Ok(Uplink::Refused(reason) | Uplink::Lost(reason)) => Err(reason.clone()),
                Ok(_) => Ok(()),
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn parent_lost(&self) -> LocalFuture<String> {
        let mut uplink = self.uplink();
        Box::pin(async move {
            let lost = uplink.wait_for(|uplink| matches!(uplink, Uplink::Lost(_))).await;
            match lost.as_deref() {
                Ok(Uplink::Lost(reason)) => reason.clone(),
                _ => std::future::pending().await,
            }
        })
    }

    fn children(&self) -> Idset {
        self.children.borrow().online_ranks().collect()
    }

    fn children_gone(&self) -> LocalFuture<()> {
        let mut online = self.online_children.subscribe();
        Box::pin(async move {
            let _ = online.wait_for(|count| *count == 0).await;
        })
    }

    fn close(&self) {
        self.closed.set(true);
    }

    fn goodbye(&self) -> LocalFuture<()> {
        let Some(overlay) = self.broker.overlay().cloned() else {
            return Box::pin(std::future::ready(()));
        };
        Box::pin(async move {
            // Between hello and answer this broker does not know whether its parent counts it as
            // online; if so, leaving without a word would make it lost.
            let mut introduced = overlay.introduced.subscribe();
            let settled = introduced.wait_for(|introduced| !introduced);
            let _ = tokio::time::timeout(HELLO_LIMIT, settled).await;
            if overlay.send_goodbye() {
                let mut uplink = overlay.uplink();
                let answered = uplink.wait_for(|uplink| *uplink != Uplink::Joined);
                let _ = tokio::time::timeout(GOODBYE_LIMIT, answered).await;
            }
        })
    }
}
