//! `flux ping`: how long a request takes to a service and back.

use std::time::Duration;

use clap::Args;
use flux_client::{Client, Request, RpcError};
use flux_protocol::message::{Flags, Message};
use flux_protocol::payload;
use flux_protocol::rpc::common::PingResponse;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::args::{duration, size};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::target::{Target, rank_of_host};
use crate::{outln, output};

#[derive(Debug, Args)]
#[command(override_usage = "flux-ping [OPTIONS] TARGET")]
pub(crate) struct Ping {
    /// Find target on a specific broker rank
    #[arg(short, long)]
    rank: Option<String>,
    /// Include in the payload a string of length N bytes
    #[arg(short, long, value_name = "N", value_parser = size, default_value = "0")]
    pad: u64,
    /// Specify the delay, in seconds, between successive requests
    #[arg(short, long, value_name = "N", value_parser = duration, default_value = "1")]
    interval: Duration,
    /// Specify the number of requests to send
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: u64,
    /// Begin processing responses after all requests are sent
    #[arg(short, long)]
    batch: bool,
    /// Include userid and rolemask in ping output
    #[arg(short, long)]
    userid: bool,
    #[arg(value_name = "TARGET")]
    target: String,
}

/// The time is that of sending, by the monotonic clock.
#[derive(Serialize, Deserialize)]
struct Echo {
    seq: u64,
    #[serde(rename = "time.tv_sec")]
    sec: i64,
    #[serde(rename = "time.tv_nsec")]
    nsec: i64,
    pad: String,
}

/// Whom to ask, and how to call it.
struct Goal {
    target: Target,
    /// The broker as the user named it.
    name: String,
    /// What to add where that does not tell the rank.
    note: String,
    service: String,
}

impl Ping {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.batch && self.count == 0 {
            return Err(Failure::new("--batch should only be used with --count"));
        }
        if self.rank.is_some() && self.target.contains('!') {
            return Err(Failure::new("--rank and TARGET both try to specify a nodeid"));
        }
        let flux = context.connect().await?;
        let goal = self.goal(&flux).await?;
        outln!("flux-ping {}!{}{}", goal.name, goal.service, goal.note);
        let (sink, mut answers) = mpsc::unbounded_channel();
        let mut sent = 0;
        let mut timer = tokio::time::interval(self.interval.max(Duration::from_nanos(1)));
        let mut received = 0;
        while self.count == 0 || received < self.count {
            let all_sent = self.count > 0 && sent == self.count;
            tokio::select! {
                _ = timer.tick(), if !all_sent => {
                    self.send(&flux, &goal, sent, &sink)?;
                    sent += 1;
                }
                Some(answer) = answers.recv(), if all_sent || !self.batch => {
                    self.show(&goal, answer)?;
                    received += 1;
                }
            }
        }
        Ok(0)
    }

    fn send(
        &self,
        flux: &Client,
        goal: &Goal,
        seq: u64,
        sink: &mpsc::UnboundedSender<Result<Message, RpcError>>,
    ) -> Result<(), Failure> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(Failure::new)?;
        let pad = "p".repeat(usize::try_from(self.pad).unwrap_or(usize::MAX));
        let echo = Echo { seq, sec: now.tv_sec(), nsec: now.tv_nsec(), pad };
        let mut request = Request::new(format!("{}.ping", goal.service))
            .to(goal.target.nodeid())
            .payload(payload::encode_json(&echo).map_err(Failure::new)?);
        if matches!(goal.target, Target::Upstream(_)) {
            request = request.flags(Flags::UPSTREAM);
        }
        let pending = flux.start_raw(request)?;
        let sink = sink.clone();
        tokio::spawn(async move {
            // Nobody listens any more after an error.
            let _ = sink.send(pending.await);
        });
        Ok(())
    }

    fn show(&self, goal: &Goal, answer: Result<Message, RpcError>) -> Result<(), Failure> {
        let subject = match goal.target {
            Target::Any => format!("{}.ping", goal.service),
            Target::Upstream(_) => format!("upstream!{}.ping", goal.service),
            Target::Rank(rank) => format!("{rank}!{}.ping", goal.service),
        };
        let message = answer.map_err(|e| Failure::of(&subject, e.errno()))?;
        let bad = |e| Failure::of(&subject, e);
        let echo: Echo = payload::decode_json(message.payload.as_ref()).map_err(bad)?;
        let ping: PingResponse = payload::decode_json(message.payload.as_ref()).map_err(bad)?;
        if echo.pad.len() as u64 != self.pad || echo.pad.bytes().any(|byte| byte != b'p') {
            return Err(Failure::of(&subject, "padding contents invalid"));
        }
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(Failure::new)?;
        let elapsed_ms =
            (now.tv_sec() - echo.sec) as f64 * 1e3 + (now.tv_nsec() - echo.nsec) as f64 / 1e6;
        let user = if self.userid {
            format!(" userid={} rolemask={:#x}", ping.userid, ping.rolemask)
        } else {
            String::new()
        };
        outln!(
            "{}!{}.ping pad={}{user} seq={} time={elapsed_ms:.3} ms ({})",
            ping.rank,
            goal.service,
            self.pad,
            echo.seq,
            ping.route
        );
        output::flush();
        Ok(())
    }

    /// `NODEID!SERVICE`, a service anywhere, or a broker's own service.
    async fn goal(&self, flux: &Client) -> Result<Goal, Failure> {
        let target = match &self.rank {
            Some(rank) => format!("{rank}!{}", self.target),
            None => self.target.clone(),
        };
        if let Some((nodeid, service)) = target.split_once('!') {
            let goal = broker(flux, nodeid).await?;
            let goal =
                goal.ok_or_else(|| Failure::new(format_args!("invalid nodeid/host: '{nodeid}'")))?;
            return Ok(Goal { service: service.to_owned(), ..goal });
        }
        let anywhere = || Goal { service: target.clone(), ..Goal::new(Target::Any, "any") };
        Ok(broker(flux, &target).await?.unwrap_or_else(anywhere))
    }
}

impl Goal {
    fn new(target: Target, name: &str) -> Goal {
        Goal { target, name: name.to_owned(), note: String::new(), service: "broker".to_owned() }
    }
}

/// The service of the broker itself, where `text` names one.
async fn broker(flux: &Client, text: &str) -> Result<Option<Goal>, Failure> {
    match text {
        "any" => return Ok(Some(Goal::new(Target::Any, text))),
        "upstream" => {
            let rank = flux.attr("rank").await.map_err(|e| Failure::of("rank", e))?;
            let rank = rank.parse().map_err(|e| Failure::of("rank", e))?;
            return Ok(Some(Goal::new(Target::Upstream(rank), text)));
        }
        _ => {}
    }
    if let Some(rank) = rank_of_host(flux, text).await? {
        let note = format!(" (rank {rank})");
        return Ok(Some(Goal { note, ..Goal::new(Target::Rank(rank), text) }));
    }
    Ok(text.parse().ok().map(|rank| Goal::new(Target::Rank(rank), text)))
}
