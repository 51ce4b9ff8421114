//! Waiting until enough brokers are there.

use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::groups;

use super::{StateMachine, monitor_parent};
use crate::broker::Broker;
use crate::context::Context;
use crate::log::Severity;
use crate::state::{Event, State};

/// The group of brokers that are up.
const ONLINE: &str = "broker.online";

/// Longer than any instance lives, and no more than a timer takes.
pub(super) const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

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
    let needed = Needed::of(context.broker())?;
    let warn = warn_period(context);
    let name = groups::NameRequest { name: ONLINE.to_owned() };
    let mut members = context.handle().stream::<groups::Get>(Nodeid(0), &name)?;
    let mut online = Idset::new();
    let mut warned = false;
    loop {
        let next = tokio::time::timeout(warn, members.next()).await;
        match next {
            Ok(response) => online = response?.members.parse().unwrap_or_default(),
            Err(_) => {
                warn_of_slow(context, &online);
                warned = true;
            }
        }
        if needed.met_by(&online) {
            if warned {
                context.broker().log().append(Severity::Err, "broker", "quorum reached");
            }
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
pub(super) enum Needed {
    Count(u64),
    Ranks(Idset),
}

impl Needed {
    /// EINVAL: neither, or more than the instance has.
    ///
    /// A plain number is a count, but for 0, which can only mean rank 0.
    pub(super) fn of(broker: &Broker) -> Result<Needed, Failure> {
        let size = u64::from(broker.size());
        let Some(text) = broker.attrs().get("broker.quorum") else {
            return Ok(Needed::Count(size));
        };
        let bad = |why: &str| {
            let text = format!("Error parsing broker.quorum attribute: '{text}' {why}");
            Failure::new(Errno::EINVAL, text)
        };
        let more = format!("is more than there are in an instance of size {size}");
        if let Ok(count) = text.parse::<u64>() {
            return if count <= size { Ok(Needed::Count(count.max(1))) } else { Err(bad(&more)) };
        }
        let ranks: Idset = text.parse().map_err(|_| bad("is no number of brokers"))?;
        match ranks.last() {
            None => Err(bad("is no number of brokers")),
            Some(last) if u64::from(last) >= size => Err(bad(&more)),
            Some(_) => Ok(Needed::Ranks(ranks)),
        }
    }

    /// The older form means something else in flux-core, where it is a number now.
    pub(super) fn warn_of_older_form(&self, broker: &Broker) {
        let zero = broker.attrs().get("broker.quorum").is_some_and(|text| text == "0");
        let assumed = match self {
            Needed::Count(_) if zero => "rank 0".to_owned(),
            Needed::Count(_) => return,
            Needed::Ranks(ranks) => format!("ranks {ranks}"),
        };
        let text = format!("warning: broker.quorum is a number of brokers now: assuming {assumed}");
        broker.log().append(Severity::Err, "broker", &text);
    }

    fn met_by(&self, online: &Idset) -> bool {
        match self {
            Needed::Count(count) => online.count() >= *count,
            Needed::Ranks(ranks) => ranks.iter().all(|rank| online.contains(rank)),
        }
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
