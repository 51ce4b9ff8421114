//! `flux resource eventlog`: what has happened to resources, and what happens.

use std::time::Duration;

use clap::Args;
use flux_client::{Client, Request};
use flux_protocol::eventlog::Event;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::payload::{Object, Payload};
use flux_protocol::rpc::{Method, resource as rpc};
use serde_json::Value;

use super::{LEADER, error};
use crate::args::duration;
use crate::context::Context;
use crate::eventlog::{Formatter, TimeFormat};
use crate::failure::{Failure, Outcome};
use crate::term::Color;
use crate::{outln, output, target};

#[derive(Debug, Args)]
pub(super) struct Eventlog {
    /// Specify output format: text, json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"],
          hide_default_value = true)]
    format: String,
    /// Specify time format: raw, iso, offset, human
    #[arg(
        short = 'T',
        long,
        value_name = "FORMAT",
        default_value = "raw",
        hide_default_value = true
    )]
    time_format: TimeFormat,
    /// Display human-readable output
    #[arg(short = 'H', long)]
    human: bool,
    /// Display new events as they are posted
    #[arg(short = 'F', long)]
    follow: bool,
    /// With --follow or --wait, timeout after TIME has elapsed
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Display events until EVENT is posted
    #[arg(short, long, value_name = "EVENT")]
    wait: Option<String>,
    /// With --wait, match KEY=VAL in context of EVENT
    #[arg(short, long, value_name = "KEY=VAL", value_parser = pair)]
    match_context: Vec<(String, Value)>,
    /// Only display events that include TARGETS (hosts or ranks)
    #[arg(short, long, value_name = "TARGETS")]
    include: Option<String>,
    #[command(flatten)]
    color: Color,
}

/// Nodes by rank and by name.
struct Targets {
    /// Hosts that have several brokers are told apart by rank alone.
    by_rank: bool,
    ranks: Idset,
    hosts: Hostlist,
}

impl Eventlog {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        match self.timeout {
            None => self.show(&flux).await,
            Some(limit) => match tokio::time::timeout(limit, self.show(&flux)).await {
                Ok(outcome) => outcome,
                Err(_) => self.timed_out(),
            },
        }
    }

    /// What there was has been shown, and what was waited for was not among it.
    fn timed_out(&self) -> Outcome {
        match &self.wait {
            Some(event) => Err(error(format_args!("timeout waiting for event '{event}'"))),
            None => Ok(0),
        }
    }

    async fn show(&self, flux: &Client) -> Outcome {
        let targets = match &self.include {
            Some(text) => Some(Targets::parse(text, &target::hostlist(flux).await?)?),
            None => None,
        };
        let time = if self.human { TimeFormat::Human } else { self.time_format };
        let json = self.format == "json" && !self.human;
        let mut formatter = Formatter::new(time, self.color.stdout(), json);
        let payload = Object::new().encode().map_err(error)?;
        let request = Request::new(rpc::Journal::TOPIC).to(LEADER).payload(payload);
        let mut responses = flux.stream_raw(request)?.decode::<rpc::JournalResponse>();
        while let Some(response) = responses.next().await.map_err(error)? {
            // Without events: this was what had happened before.
            if response.events.is_empty() && !self.follow && self.wait.is_none() {
                responses.cancel::<rpc::JournalCancel>()?;
                break;
            }
            for event in &response.events {
                if targets.as_ref().is_some_and(|targets| !targets.match_event(event)) {
                    continue;
                }
                outln!("{}", formatter.format(event));
                output::flush();
                if self.is_waited_for(event) {
                    responses.cancel::<rpc::JournalCancel>()?;
                    flux.flush().await?;
                    return Ok(0);
                }
            }
        }
        flux.flush().await?;
        Ok(0)
    }

    fn is_waited_for(&self, event: &Event) -> bool {
        let context = event.context_as::<Object>().unwrap_or_default();
        self.wait.as_ref() == Some(&event.name)
            && self.match_context.iter().all(|(key, wanted)| same(context.get(key), wanted))
    }
}

impl Targets {
    fn parse(text: &str, hosts: &Hostlist) -> Result<Targets, Failure> {
        if let Ok(ranks) = Idset::decode(text) {
            if let Some(rank) = ranks.iter().find(|rank| hosts.nth((*rank).into()).is_none()) {
                return Err(error(format_args!("{text}: there is no rank {rank}")));
            }
            let named = ranks.iter().filter_map(|rank| hosts.nth(rank.into())).collect();
            return Ok(Targets { by_rank: true, ranks, hosts: named });
        }
        let wanted: Hostlist =
            text.parse().map_err(|_| error(format_args!("invalid targets {text}")))?;
        if let Some(host) = wanted.iter().find(|host| hosts.find(host).is_err()) {
            return Err(error(format_args!("{text}: there is no host {host}")));
        }
        let ranks =
            wanted.iter().filter_map(|host| u32::try_from(hosts.find(&host).ok()?).ok()).collect();
        Ok(Targets { by_rank: false, ranks, hosts: wanted })
    }

    fn match_event(&self, event: &Event) -> bool {
        let context = event.context_as::<Object>().unwrap_or_default();
        let text = |key: &str| context.get(key).and_then(Value::as_str);
        let ranks = text("ranks").or(text("idset")).and_then(|ids| Idset::decode(ids).ok());
        let by_rank = ranks.is_some_and(|ranks| ranks.intersects(&self.ranks));
        if self.by_rank {
            return by_rank;
        }
        let hosts = text("nodelist").and_then(|hosts| Hostlist::decode(hosts).ok());
        by_rank || hosts.is_some_and(|list| self.hosts.iter().any(|host| list.find(&host).is_ok()))
    }
}

/// `KEY=VAL` for clap; a value that is not JSON is a string.
fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid KEY=VAL argument: '{text}' (missing '=')"))?;
    if key.is_empty() {
        return Err(format!("invalid KEY=VAL argument: '{text}' (empty key)"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((key.to_owned(), value))
}

/// Numbers with a fraction need not have all digits.
fn same(found: Option<&Value>, wanted: &Value) -> bool {
    match (found, wanted) {
        (Some(Value::Number(found)), Value::Number(wanted)) if found.is_f64() => {
            let difference = found.as_f64().unwrap_or(f64::NAN) - wanted.as_f64().unwrap_or(0.0);
            difference.abs() <= 1e-5
        }
        (found, wanted) => found == Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(context: Value) -> Event {
        Event::new(1.0, "drain").with_context(&context).unwrap()
    }

    #[test]
    fn targets_are_ranks_or_hosts() {
        let hosts: Hostlist = "a[0-3]".parse().unwrap();
        let matches = |targets: &str, context: Value| {
            Targets::parse(targets, &hosts).unwrap().match_event(&event(context))
        };
        let drain = serde_json::json!({"idset": "1-2", "nodelist": "a[1-2]"});
        assert!(matches("2", drain.clone()) && !matches("3", drain.clone()));
        assert!(matches("a1", drain.clone()) && !matches("a[0,3]", drain));
        assert!(matches("a3", serde_json::json!({"ranks": "0-3"})));
    }

    #[test]
    fn targets_that_the_instance_lacks_are_refused() {
        let hosts: Hostlist = "a[0-3]".parse().unwrap();
        let refused = |text: &str| Targets::parse(text, &hosts).err().map(|e| format!("{e:?}"));
        assert!(refused("4").unwrap().contains("there is no rank 4"));
        assert!(refused("a[3-5]").unwrap().contains("there is no host a4"));
        assert!(refused("0-3").is_none() && refused("a[0-3]").is_none());
    }

    #[test]
    fn contexts_match_by_value() {
        assert_eq!(pair("a=1").unwrap(), ("a".to_owned(), Value::from(1)));
        assert_eq!(pair("a=b c").unwrap(), ("a".to_owned(), Value::from("b c")));
        assert!(pair("a").is_err() && pair("=a").is_err());
        assert!(same(Some(&Value::from(1.000_001)), &Value::from(1.0)));
        assert!(!same(None, &Value::from("x")));
    }
}
