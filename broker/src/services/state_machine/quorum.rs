//! Waiting until enough brokers are there.

use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::groups;

use super::{StateMachine, monitor_parent};
use crate::context::Context;
use crate::log::Severity;
use crate::state::{Event, State};

/// The group of brokers that are up.
const ONLINE: &str = "broker.online";

/// Longer than any instance lives, and no more than a timer takes.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Tell the instance that this broker is up; at rank 0 wait for the others, elsewhere for rank 0.
pub(super) async fn reach(context: &Context<StateMachine>) -> Event {
    let result = match context.rank() {
        0 => reach_leader(context).await,
        _ => reach_follower(context).await,
    };
    result.unwrap_or_else(|failure| {
        let text = format!("quorum: {failure}");
        context.broker().log().append(Severity::Err, "broker", &text);
        Event::QuorumFail
    })
}

async fn reach_follower(context: &Context<StateMachine>) -> Result<Event, Failure> {
    join(context).await?;
    let mut states = monitor_parent(context)?;
    loop {
        let state = states.next().await?.state;
        if state == State::Run.number() {
            return Ok(Event::QuorumFull);
        }
        if state > State::Run.number() {
            return Ok(Event::QuorumFail);
        }
    }
}

async fn reach_leader(context: &Context<StateMachine>) -> Result<Event, Failure> {
    match join(context).await {
        // A broker that is alone needs no groups.
        Err(failure) if failure.errno == Errno::ENOSYS && context.broker().size() == 1 => {
            return Ok(Event::QuorumFull);
        }
        result => result?,
    }
    let needed = needed(context);
    let warn = warn_period(context);
    let name = groups::NameRequest { name: ONLINE.to_owned() };
    let mut members = context.handle().stream::<groups::Get>(Nodeid(0), &name)?;
    let mut online = Idset::new();
    loop {
        let next = tokio::time::timeout(warn, members.next()).await;
        match next {
            Ok(response) => online = response?.members.parse().unwrap_or_default(),
            Err(_) => warn_of_slow(context, &online),
        }
        if needed.met_by(&online) {
            return Ok(Event::QuorumFull);
        }
    }
}

async fn join(context: &Context<StateMachine>) -> Result<(), Failure> {
    let name = groups::NameRequest { name: ONLINE.to_owned() };
    context.handle().rpc_to::<groups::Join>(Nodeid(context.rank()), &name).await?;
    Ok(())
}

/// `broker.quorum`: a number of brokers, or (in the older form) the ranks that must be there.
enum Needed {
    Count(u64),
    Ranks(Idset),
}

impl Needed {
    fn met_by(&self, online: &Idset) -> bool {
        match self {
            Needed::Count(count) => online.count() >= *count,
            Needed::Ranks(ranks) => ranks.iter().all(|rank| online.contains(rank)),
        }
    }
}

/// A plain number is a count, but for 0, which can only mean rank 0.
fn needed(context: &Context<StateMachine>) -> Needed {
    let size = u64::from(context.broker().size());
    let Some(text) = context.broker().attrs().get("broker.quorum") else {
        return Needed::Count(size);
    };
    match text.parse::<u64>() {
        Ok(0) => Needed::Count(1),
        Ok(count) => Needed::Count(count.min(size)),
        Err(_) => text.parse().map_or(Needed::Count(size), Needed::Ranks),
    }
}

fn warn_of_slow(context: &Context<StateMachine>, online: &Idset) {
    let mut missing = Idset::from_range(0, context.broker().size().saturating_sub(1));
    for rank in online.iter() {
        missing.remove(rank);
    }
    let hosts = context.broker().hosts_of(&missing);
    let text = format!(
        "quorum delayed: waiting for {} of {}: {hosts} (rank {missing})",
        missing.count(),
        context.broker().size()
    );
    context.broker().log().append(Severity::Err, "broker", &text);
}

/// `broker.quorum-warn`, called `broker.quorum-timeout` in old units; `none` is never.
fn warn_period(context: &Context<StateMachine>) -> Duration {
    let attrs = context.broker().attrs();
    let text = attrs.get("broker.quorum-warn").or_else(|| attrs.get("broker.quorum-timeout"));
    let seconds = match text.as_deref() {
        None => 60.0,
        Some("none") => return NEVER,
        Some(text) => flux_protocol::fsd::parse(text).unwrap_or(60.0),
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(NEVER).min(NEVER)
}
