//! `flux uptime`: one line on how the instance is.

use clap::Args;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::fsd;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{attr, groups, job_manager, resource, state_machine};
use jiff::Timestamp;
use nix::unistd::{Uid, User};

use crate::context::Context;
use crate::eventlog::local;
use crate::failure::{Failure, Outcome};
use crate::outln;

/// The services that know the whole instance are there.
const LEADER: Nodeid = Nodeid(0);

#[derive(Debug, Args)]
#[command(override_usage = "flux uptime [OPTIONS]")]
pub(crate) struct Uptime {}

/// What can only be told while the instance runs.
#[derive(Default)]
struct Details {
    drained: u64,
    offline: u64,
    submit_disabled: bool,
    scheduler_stopped: bool,
}

impl Uptime {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        let owner: u32 = number(&flux, "security.owner").await?;
        let size: u64 = number(&flux, "size").await?;
        let level: u32 = number(&flux, "instance-level").await?;
        let state = flux
            .rpc::<state_machine::Get>(Nodeid::ANY, &Empty)
            .await
            .map_err(|e| Failure::of("Error fetching broker state", e.errno()))?;
        let now = Timestamp::now().as_microsecond() as f64 / 1e6;
        let (duration, details) = if state.state == "run" {
            (now - start_time(&flux).await?, Details::get(&flux, size).await?)
        } else {
            (state.duration, Details::default())
        };
        let duration = fsd::format_with_precision(duration.max(0.0), 2)
            .map_err(|e| Failure::of("Error formatting uptime duration", e))?;
        let mut extra = String::new();
        for (count, name) in [(details.drained, "drained"), (details.offline, "offline")] {
            if count > 0 {
                extra.push_str(&format!(",  {count} {name}"));
            }
        }
        outln!(
            " {} {} {duration},  owner {},  depth {level},  size {size}{extra}",
            local(now, "%H:%M:%S"),
            state.state,
            user_name(owner)
        );
        let off: Vec<&str> = [
            (details.submit_disabled, "submit disabled"),
            (details.scheduler_stopped, "scheduler stopped"),
        ]
        .into_iter()
        .filter_map(|(set, text)| set.then_some(text))
        .collect();
        if !off.is_empty() {
            outln!("  {}", off.join(",  "));
        }
        Ok(0)
    }
}

impl Details {
    async fn get(flux: &Client, size: u64) -> Result<Details, Failure> {
        // Sent together: each takes its time at rank 0.
        let status = flux.start::<resource::Status>(LEADER, &Empty)?;
        let online = groups::NameRequest { name: "broker.online".to_owned() };
        let online = flux.start::<groups::Get>(LEADER, &online)?;
        let queues = flux.start::<job_manager::QueueList>(LEADER, &Empty)?;
        let drained = match status.await {
            Ok(status) => status.drain.keys().map(|ids| count(ids)).sum(),
            // Resources that are discovered are not known before all brokers have been there.
            Err(e) if e.errno() == Errno::ENOENT => 0,
            Err(e) => return Err(Failure::of("Error fetching resource status", e.errno())),
        };
        let online = online
            .await
            .map_err(|e| Failure::of("Error fetching broker.online group", e.errno()))?;
        let queues = queues.await.map_err(|e| Failure::of("queue-list", e))?;
        let names: Vec<Option<String>> = match queues.queues.is_empty() {
            true => vec![None],
            false => queues.queues.into_iter().map(Some).collect(),
        };
        let (mut submit_disabled, mut scheduler_stopped) = (true, true);
        for name in names {
            let request = job_manager::QueueStatusRequest { name };
            let queue = flux
                .rpc::<job_manager::QueueStatus>(LEADER, &request)
                .await
                .map_err(|e| Failure::of("Error fetching queue status", e))?;
            // One queue that works is enough.
            submit_disabled &= !queue.enable;
            scheduler_stopped &= !queue.start;
        }
        let offline = size.saturating_sub(count(&online.members));
        Ok(Details { drained, offline, submit_disabled, scheduler_stopped })
    }
}

fn count(ids: &str) -> u64 {
    Idset::decode(ids).map(|ids| ids.count()).unwrap_or(0)
}

async fn number<T: std::str::FromStr>(flux: &Client, name: &str) -> Result<T, Failure> {
    let value = flux
        .attr(name)
        .await
        .map_err(|e| Failure::of(format_args!("Error fetching {name} attribute"), e.errno()))?;
    value.parse().map_err(|_| Failure::new(format_args!("Error parsing {name}")))
}

/// Of the instance, which is that of its first broker.
async fn start_time(flux: &Client) -> Result<f64, Failure> {
    let name = "broker.starttime";
    let request = attr::GetRequest { name: name.to_owned() };
    let response = flux
        .rpc::<attr::Get>(LEADER, &request)
        .await
        .map_err(|e| Failure::of(format_args!("Error fetching {name} attribute"), e.errno()))?;
    response.value.parse().map_err(|_| Failure::new(format_args!("Error parsing {name}")))
}

/// The name of a user, or its number where there is none.
pub(crate) fn user_name(userid: u32) -> String {
    match User::from_uid(Uid::from_raw(userid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => userid.to_string(),
    }
}
