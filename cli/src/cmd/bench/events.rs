//! Events to many subscribers.

use std::time::Instant;

use clap::Args;
use flux_client::{Client, Events};
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::event;

use super::figures::figure;
use super::rounds::{Rounds, rate};
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(override_usage = "flux-bench event [OPTIONS]")]
pub(crate) struct Event {
    /// Number of events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5_000)]
    count: usize,
    /// Number of connections that subscribe
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    subscribers: usize,
}

impl Event {
    pub(super) async fn run(self, flux: &Client) -> Result<(), Failure> {
        let topic = format!("bench-{}", std::process::id());
        let rounds = Rounds { count: self.count, parallel: 1 };
        rounds.one_by_one("publish", |_| publish(flux, &topic)).await?;
        let mut subscribers = Vec::with_capacity(self.subscribers);
        for _ in 0..self.subscribers {
            let client = Client::open(None).await.map_err(Failure::new)?;
            subscribers.push(client.subscribe(&topic).await?);
        }
        let begin = Instant::now();
        let readers: Vec<_> =
            subscribers.into_iter().map(|events| tokio::spawn(read(events, self.count))).collect();
        for _ in 0..self.count {
            flux.start::<event::Publish>(Nodeid::ANY, &request(&topic))?;
        }
        for reader in readers {
            reader.await.map_err(Failure::new)??;
        }
        let rate = rate(self.count, begin.elapsed());
        figure(&format!("to {} subscribers", self.subscribers), rate, "events/s");
        figure("received", rate * self.subscribers as f64, "events/s");
        Ok(())
    }
}

fn request(topic: &str) -> event::PublishRequest {
    event::PublishRequest { topic: topic.to_owned(), flags: 0, payload: None }
}

async fn publish(flux: &Client, topic: &str) -> Result<(), Failure> {
    flux.rpc::<event::Publish>(Nodeid::ANY, &request(topic)).await?;
    Ok(())
}

async fn read(mut events: Events, count: usize) -> Result<(), Failure> {
    for _ in 0..count {
        events.next().await?;
    }
    Ok(())
}
