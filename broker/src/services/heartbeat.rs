//! `heartbeat`: rank 0 publishes `heartbeat.pulse` periodically; the other ranks watch for it.

use std::time::{Duration, Instant};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fsd;
use flux_protocol::message::{Flags, Message, Nodeid};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::heartbeat as rpc;
use flux_protocol::rpc::overlay::{DisconnectParent, DisconnectParentRequest};
use tokio::task::JoinHandle;

use crate::call::Sender;
use crate::config::Config;
use crate::config::periodic::Heartbeat as Settings;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::{Service, log_failure};

/// What is published.
pub const TOPIC: &str = "heartbeat.pulse";

#[derive(Debug)]
pub struct Heartbeat {
    settings: Settings,
    count: u64,
    /// The latest pulse, or the start.
    last: Instant,
    overdue: bool,
    /// The pulse has not come for so long that the parent was given up.
    lost: bool,
    timer: Option<JoinHandle<()>>,
}

impl Service for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const SERVICES: &'static [&'static str] = &["heartbeat"];
    const RELOAD_REFUSAL: &'static str = "Error unpacking config-reload request";

    async fn start(context: &Context<Heartbeat>, args: &[String]) -> Result<Heartbeat, Failure> {
        let mut heartbeat = Heartbeat {
            settings: settings(&context.config(), args)?,
            count: 0,
            last: Instant::now(),
            overdue: false,
            lost: false,
            timer: None,
        };
        if context.rank() > 0 {
            context.subscribe(TOPIC);
        }
        heartbeat.restart_timer(context);
        Ok(heartbeat)
    }

    fn methods() -> Methods<Heartbeat> {
        Methods::default().reply::<rpc::Stats>(Heartbeat::statistics)
    }

    fn event(&mut self, _: &Context<Heartbeat>, event: &Message) {
        if *event.topic == *TOPIC {
            self.count += 1;
            self.last = Instant::now();
            self.lost = false;
        }
    }

    fn configure(&mut self, context: &Context<Heartbeat>, config: &Config) -> Result<(), Failure> {
        // A new configuration stands above what the module was loaded with, as in flux-core.
        let new = settings(config, &[])?;
        if new != self.settings {
            self.settings = new;
            self.restart_timer(context);
        }
        Ok(())
    }

    async fn stop(self, _: &Context<Heartbeat>) {
        if let Some(timer) = self.timer {
            timer.abort();
        }
    }
}

impl Heartbeat {
    fn restart_timer(&mut self, context: &Context<Heartbeat>) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(self.settings.period));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let context = context.clone();
        self.timer = Some(tokio::task::spawn_local(async move {
            loop {
                ticks.tick().await;
                let again = context.clone();
                context.later(move |heartbeat: &mut Heartbeat| match again.rank() {
                    0 => heartbeat.pulse(&again),
                    _ => heartbeat.watch(&again),
                });
            }
        }));
    }

    fn pulse(&mut self, context: &Context<Heartbeat>) {
        log_failure(context, "error publishing heartbeat", context.handle().publish(TOPIC, None));
        self.count += 1;
    }

    /// Ranks above 0: is the pulse late, or has it stopped?
    fn watch(&mut self, context: &Context<Heartbeat>) {
        let Settings { period, timeout, warn_thresh } = self.settings;
        let silence = self.last.elapsed().as_secs_f64();
        let overdue = silence > period * warn_thresh as f64;
        if overdue != self.overdue {
            self.overdue = overdue;
            let what = if overdue { "overdue" } else { "received" };
            context.log(Severity::Warning, format!("heartbeat {what}"));
        }
        if timeout > 0.0 && silence > timeout && !self.lost {
            self.lost = true;
            let silence = fsd::format_with_precision(silence, 2).unwrap_or_default();
            let request = DisconnectParentRequest { reason: format!("no heartbeat for {silence}") };
            let sent = context.handle().notify::<DisconnectParent>(
                Nodeid::ANY,
                Flags::default(),
                &request,
            );
            log_failure(context, "overlay.disconnect-parent", sent);
        }
    }

    fn statistics(
        &mut self,
        _: &Context<Heartbeat>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::StatsResponse, Failure> {
        let Settings { period, timeout, warn_thresh } = self.settings;
        Ok(rpc::StatsResponse { period, timeout, count: self.count, warn_thresh })
    }
}

/// The `[heartbeat]` table, then the module's arguments.
fn settings(config: &Config, args: &[String]) -> Result<Settings, Failure> {
    let mut settings = Settings::parse(config)?;
    for arg in args {
        let Some(value) = arg.strip_prefix("period=") else {
            return Err(Failure::new(Errno::EINVAL, format!("{arg}: unknown option")));
        };
        let period = fsd::parse(value).ok().filter(|period| *period > 0.0 && period.is_finite());
        settings.period = period.ok_or_else(|| {
            Failure::new(Errno::EINVAL, "period: error parsing FSD: Invalid argument")
        })?;
    }
    Ok(settings)
}
