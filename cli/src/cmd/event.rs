//! `flux event`: publish events, and show those that come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use flux_client::Client;
use flux_protocol::message::{Flags, Message, Nodeid, text_payload};
use flux_protocol::payload;
use flux_protocol::rpc::event;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{outln, output};

/// Events are published by the broker of rank 0.
const LEADER: Nodeid = Nodeid(0);

#[derive(Debug, Args)]
pub(crate) struct Event {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish an event
    Pub(Publish),
    /// Print events as they are received
    Sub(Subscribe),
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-event pub [OPTIONS] topic [payload]")]
struct Publish {
    /// Interpret event payload as raw.
    #[arg(short, long)]
    raw: bool,
    /// Wait for event sequence assignment before exiting.
    #[arg(short, long)]
    synchronous: bool,
    /// Wait for published event to be received before exiting.
    #[arg(short, long)]
    loopback: bool,
    /// Set privacy flag on published event.
    #[arg(short, long)]
    private: bool,
    topic: String,
    payload: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-event sub [OPTIONS] [topic...]")]
struct Subscribe {
    /// Process N events then exit
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: u64,
    topic: Vec<String>,
}

impl Event {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::Pub(publish) => publish.run(&flux).await,
            Command::Sub(subscribe) => {
                subscribe.run(&flux).await.map_err(|e| e.prefix("flux-event"))
            }
        }
    }
}

impl Publish {
    async fn run(self, flux: &Client) -> Outcome {
        let payload = self.payload();
        let events = match self.loopback {
            true => Some(
                flux.subscribe(&self.topic)
                    .await
                    .map_err(|e| Failure::of("flux_event_subscribe", e.errno()))?,
            ),
            false => None,
        };
        if self.synchronous {
            let request = event::PublishRequest {
                topic: self.topic.clone(),
                flags: if self.private { event::PRIVATE } else { 0 },
                payload: payload.as_ref().map(|payload| STANDARD.encode(payload)),
            };
            let response = flux
                .rpc::<event::Publish>(LEADER, &request)
                .await
                .map_err(|e| Failure::of("publish failed", e.errno()))?;
            outln!("seq={}", response.seq);
        } else {
            let flags = if self.private { Flags::PRIVATE } else { Flags::default() };
            flux.publish(&self.topic, payload.clone(), flags)?;
        }
        if let Some(mut events) = events {
            while events.next().await?.payload != payload {}
        }
        flux.flush().await?;
        Ok(0)
    }

    fn payload(&self) -> Option<Bytes> {
        if self.payload.is_empty() {
            return None;
        }
        let text = self.payload.join(" ");
        if self.raw {
            return Some(Bytes::from(text));
        }
        // Not looked at: subscribers decide what they make of it.
        Some(text_payload(&text))
    }
}

impl Subscribe {
    async fn run(self, flux: &Client) -> Outcome {
        let topics = if self.topic.is_empty() { vec![String::new()] } else { self.topic };
        let (sink, mut events) = mpsc::channel::<Result<Message, Failure>>(64);
        let mut before = Vec::new();
        for topic in topics {
            let subscription = flux
                .subscribe(&topic)
                .await
                .map_err(|e| Failure::of("flux_event_subscribe", e.errno()))?;
            tokio::spawn(forward(subscription, before.clone(), sink.clone()));
            before.push(topic);
        }
        drop(sink);
        let mut count = 0;
        while let Some(event) = events.recv().await {
            show(&event?);
            count += 1;
            if count == self.count {
                break;
            }
        }
        // The tasks give up their subscriptions as they see that nobody receives.
        drop(events);
        Ok(0)
    }
}

/// Hand on events that no earlier subscription hands on.
async fn forward(
    mut events: flux_client::Events,
    before: Vec<String>,
    sink: mpsc::Sender<Result<Message, Failure>>,
) {
    loop {
        let event = tokio::select! {
            event = events.next() => event.map_err(Failure::from),
            () = sink.closed() => return,
        };
        let seen = event.as_ref().is_ok_and(|event| {
            before.iter().any(|prefix| event.topic.as_str().starts_with(prefix))
        });
        let last = event.is_err();
        if (!seen && sink.send(event).await.is_err()) || last {
            return;
        }
    }
}

fn show(event: &Message) {
    let bytes = event.payload.as_deref().unwrap_or_default();
    let text = match payload::text(event.payload.as_ref()) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes
            .iter()
            .map(
                |&byte| {
                    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }
                },
            )
            .collect(),
    };
    outln!("{}\t{text}", event.topic);
    output::flush();
}
