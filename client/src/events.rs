//! Subscriptions to events (RFC 3).

use flux_protocol::message::{Message, Nodeid};
use flux_protocol::rpc::event;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::{Disconnect, RpcError};
use crate::pump::Subscription;

/// Events whose topics begin with a prefix. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Events {
    client: Client,
    id: u64,
    prefix: String,
    events: mpsc::UnboundedReceiver<Message>,
}

impl Events {
    pub(crate) async fn subscribe(client: &Client, prefix: &str) -> Result<Events, RpcError> {
        let (sink, events) = mpsc::unbounded_channel();
        let id = client.next_id();
        // Before the request: events may come right behind its response.
        let subscription = Subscription { id, prefix: prefix.to_owned(), sink };
        client.shared().state().subscriptions.push(subscription);
        let request = event::SubscribeRequest { topic: prefix.to_owned() };
        let mut this = Events { client: client.clone(), id, prefix: prefix.to_owned(), events };
        if let Err(e) = client.rpc::<event::Subscribe>(Nodeid::ANY, &request).await {
            this.forget();
            return Err(e);
        }
        Ok(this)
    }

    /// The next event; waits until the connection ends.
    pub async fn next(&mut self) -> Result<Message, Disconnect> {
        self.events.recv().await.ok_or_else(|| self.client.shared().end())
    }

    /// Unsubscribe and wait for the broker's answer.
    pub async fn unsubscribe(mut self) -> Result<(), RpcError> {
        let request = event::SubscribeRequest { topic: self.prefix.clone() };
        self.forget();
        self.client.rpc::<event::Unsubscribe>(Nodeid::ANY, &request).await?;
        Ok(())
    }

    /// Returns whether the subscription was still there.
    fn forget(&mut self) -> bool {
        let mut state = self.client.shared().state();
        let before = state.subscriptions.len();
        state.subscriptions.retain(|subscription| subscription.id != self.id);
        state.subscriptions.len() < before
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.forget() {
            let request = event::SubscribeRequest { topic: self.prefix.clone() };
            // Nobody is left to hear of a failure.
            drop(self.client.start::<event::Unsubscribe>(Nodeid::ANY, &request));
        }
    }
}
