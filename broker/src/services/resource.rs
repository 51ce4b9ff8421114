//! `resource`: the resources of the instance, which of them may be used, and who uses them.
//!
//! The inventory (R, RFC 20) comes from the first of these that has one: the configuration, the KVS
//! (the service was loaded before), the enclosing instance, the hardware. Rank 0 keeps it, in the
//! KVS too, and with it what is said about ranks: drained, excluded, online, torpid. The scheduler
//! acquires all of that; users see it in listings.
//!
//! Every change is an event. Those that must outlive the instance are in `resource.eventlog` in the
//! KVS before they are true: [`posts`] has the order. A broker that has not what the configuration
//! says drains itself.
//!
//! | file | idea |
//! |---|---|
//! | [`state`], [`drain`], [`inventory`], [`hosts`] | what is known, pure |
//! | [`history`] | drain state from the events of former times, pure |
//! | [`settings`], [`verify`] | the configuration |
//! | [`enclosing`] | the instance of which we are a job |
//! | [`hardware`], [`topology`] | what hosts have, and the sum of it |
//! | [`monitor`] | who is online |
//! | [`posts`], [`store`], [`journal`] | events: their order, the KVS, who follows them |
//! | [`acquire`] | the scheduler's view |
//! | [`requests`], [`status`], [`reload`] | the other requests |

pub mod acquire;
pub mod drain;
pub mod enclosing;
pub mod hardware;
pub mod history;
pub mod hosts;
pub mod inventory;
pub mod journal;
pub mod monitor;
pub mod posts;
pub mod reload;
pub mod requests;
pub mod settings;
pub mod state;
pub mod status;
pub mod store;
pub mod topology;
pub mod verify;

use std::time::SystemTime;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::resource as rpc;
use serde_json::Value;

use self::acquire::Acquire;
use self::drain::Drain;
use self::hardware::Hardware;
use self::hosts::Hosts;
use self::inventory::{Inventory, Method};
use self::journal::Journal;
use self::monitor::Monitor;
use self::posts::Posts;
use self::settings::Settings;
use self::state::{Change, State};
use self::status::Status;
use self::topology::Topology;
use crate::call::Sender;
use crate::config::Config;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use crate::time;

/// What handlers are given.
pub(crate) type Context = crate::context::Context<Resource>;

/// The service. Ranks other than 0 know hardware, and inventory if it was there first.
#[derive(Debug)]
pub struct Resource {
    state: State,
    /// Drain state once all that was requested is true; what requests are checked against.
    requested_drain: Drain,
    fake: bool,
    /// When the job that we are in an enclosing instance ends; 0: it does not.
    granted_until: f64,
    posts: Posts,
    journal: Journal,
    acquire: Acquire,
    status: Status,
    topology: Topology,
    monitor: Monitor,
}

/// Options of `flux module load resource`.
#[derive(Debug, Default)]
struct Args {
    /// All ranks count as online.
    force_up: bool,
    noverify: bool,
    notruncate: bool,
}

impl Service for Resource {
    const NAME: &'static str = "resource";
    const SERVICES: &'static [&'static str] = &["resource"];
    const RELOAD_REFUSAL: &'static str = "error unpacking config-reload request";

    async fn start(context: &Context, args: &[String]) -> Result<Resource, Failure> {
        let mut args = Args::parse(args)?;
        let is_recovery = context.broker().attrs().get("broker.recovery-mode").is_some();
        args.noverify |= is_recovery;
        args.notruncate |= is_recovery;
        let config = context.config();
        let settings = Settings::from_config(&config)?;
        let inventory = find_inventory(context, &settings, &config).await?;
        let mut resource = Resource::new(context, &settings, inventory.clone());
        if context.rank() == 0 {
            resource.restore(context, &settings, &args).await?;
            resource.state.exclude = resource.excluded_ranks(&settings)?;
            resource.undrain_excluded(context, &resource.state.exclude.clone());
        }
        let must_verify = !settings.noverify && !args.noverify;
        let to_verify = inventory.filter(|inventory| {
            must_verify && (inventory.method != Method::JOB_INFO || settings.verify.explicit)
        });
        let norestrict = settings.norestrict;
        match to_verify {
            Some(inventory) => {
                let hardware = topology::probe(norestrict).await;
                if let Ok(hardware) = &hardware {
                    resource.verify(context, &settings, hardware, &inventory.set).await;
                }
                resource.hardware_found(context, hardware);
            }
            None => {
                let after = context.clone();
                context.spawn(
                    topology::probe(norestrict),
                    move |resource: &mut Resource, found| {
                        resource.hardware_found(&after, found);
                    },
                );
            }
        }
        if context.rank() == 0 {
            resource.begin(context, args.force_up || settings.fake, is_recovery)?;
            resource.commit_first_posts(context).await;
            enclosing::follow(context);
        }
        Ok(resource)
    }

    fn methods() -> Methods<Resource> {
        Methods::default()
            .serve::<rpc::Acquire>(Resource::acquire)
            .serve::<rpc::AcquireCancel>(Resource::acquire_cancel)
            .serve::<rpc::AcquireMute>(Resource::acquire_mute)
            .reply::<rpc::Status>(Resource::status)
            .serve::<rpc::SchedStatus>(Resource::sched_status)
            .reply::<rpc::Get>(Resource::get)
            .serve::<rpc::TopoGet>(Resource::topo_get)
            .serve::<rpc::TopoReduce>(Resource::topo_reduce)
            .serve::<rpc::Drain>(Resource::drain)
            .serve::<rpc::Undrain>(Resource::undrain)
            .reply::<rpc::Reload>(Resource::reload)
            .reply::<rpc::ExpirationUpdate>(Resource::expiration_update)
            .serve::<rpc::MonitorWaitup>(Resource::monitor_waitup)
            .serve::<rpc::MonitorForceDown>(Resource::monitor_force_down)
            .serve::<rpc::Journal>(Resource::journal)
            .serve::<rpc::JournalCancel>(Resource::journal_cancel)
    }

    fn disconnect(&mut self, context: &Context, sender: &Sender) {
        self.acquire.disconnect(context, sender);
        self.journal.disconnect(sender);
        self.status.disconnect(sender);
        self.topology.disconnect(sender);
        self.monitor.disconnect(sender);
    }

    fn configure(&mut self, context: &Context, config: &Config) -> Result<(), Failure> {
        let settings = Settings::from_config(config)?;
        self.use_settings(context, &settings)
    }

    async fn stop(mut self, context: &Context) {
        self.monitor.stop(context);
        self.acquire.stop();
        self.journal.stop();
        self.finish_posts(context).await;
    }
}

// === impl Args ===

impl Args {
    fn parse(args: &[String]) -> Result<Args, Failure> {
        let mut parsed = Args::default();
        for arg in args {
            match arg.as_str() {
                "monitor-force-up" => parsed.force_up = true,
                "noverify" => parsed.noverify = true,
                "notruncate" => parsed.notruncate = true,
                _ => return Err(Failure::new(Errno::EINVAL, format!("unknown option: {arg}"))),
            }
        }
        Ok(parsed)
    }
}

// === impl Resource ===

impl Resource {
    fn new(context: &Context, settings: &Settings, inventory: Option<Inventory>) -> Resource {
        let mut resource = Resource {
            state: State::default(),
            requested_drain: Drain::default(),
            fake: settings.fake,
            granted_until: 0.0,
            posts: if context.rank() == 0 { Posts::at_start() } else { Posts::default() },
            journal: Journal::new(Vec::new(), settings.journal_max),
            acquire: Acquire::default(),
            status: Status::default(),
            topology: Topology::default(),
            monitor: Monitor::default(),
        };
        resource.set_inventory(context, inventory);
        resource
    }

    fn set_inventory(&mut self, context: &Context, inventory: Option<Inventory>) {
        let set = inventory.as_ref().map(|inventory| &inventory.set);
        let last = set.and_then(|set| set.ranks().last());
        self.state.size = context.broker().size().max(last.map_or(0, |last| last + 1));
        self.state.hosts = Hosts::new(&hostlist(context), set, self.fake);
        self.state.inventory = inventory;
        self.status.forget_all();
    }

    /// There is an inventory, or another one: keep it, and tell of it.
    fn define(&mut self, context: &Context, inventory: Inventory) {
        self.set_inventory(context, Some(inventory));
        self.post(context, Change::Define, None);
    }

    /// Drain state and journal from the events in the KVS.
    async fn restore(
        &mut self,
        context: &Context,
        settings: &Settings,
        args: &Args,
    ) -> Result<(), Failure> {
        let mut events = store::events(context.handle()).await?;
        let invalid = |error: history::HistoryError| Failure::new(Errno::EINVAL, error.to_string());
        self.state.drain = history::restore(&events, &self.state.hosts).map_err(invalid)?;
        self.requested_drain = self.state.drain.clone();
        let now = time::unix_seconds(SystemTime::now());
        if let Some(history) = settings.history.filter(|_| !args.notruncate) {
            let short = history::truncate(&events, now - history, &self.state.hosts);
            if let Some(short) = short.map_err(invalid)? {
                self.log_truncation(context, &events, &short);
                store::rewrite_events(context.handle(), &short).await?;
                events = short;
            }
        }
        self.journal = Journal::new(events, settings.journal_max);
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "reads as one step of restoring")]
    fn log_truncation(&self, context: &Context, from: &[Event], to: &[Event]) {
        let text =
            format!("resource.eventlog: reduced from {} to {} entries", from.len(), to.len());
        context.log(Severity::Info, text);
    }

    /// Compare hardware with inventory; drain this rank if they differ.
    async fn verify(
        &mut self,
        context: &Context,
        settings: &Settings,
        hardware: &Hardware,
        set: &ResourceSet,
    ) {
        let (rank, host) = (context.rank(), topology::host_name(context));
        let Err(mismatch) = settings.verify.check(rank, &host, hardware, set) else { return };
        let reason = mismatch.to_string();
        context.log(Severity::Err, format!("draining: {reason}"));
        if rank == 0 {
            self.drain_self(context, &reason);
            return;
        }
        let request = rpc::DrainRequest {
            targets: rank.to_string(),
            reason: Some(reason),
            mode: Some("update".to_owned()),
        };
        let answer = context.handle().rpc_to::<rpc::Drain>(Nodeid(0), &request).await;
        if let Err(failure) = answer {
            context.log(Severity::Err, format!("could not drain this rank: {failure}"));
        }
    }

    /// The first events, and the watch over who is online.
    fn begin(
        &mut self,
        context: &Context,
        force_up: bool,
        is_recovery: bool,
    ) -> Result<(), Failure> {
        if force_up {
            let all = Idset::first_n(self.state.size);
            self.monitor = Monitor::always(all.clone());
            self.post(context, Change::Restart(all), None);
        } else {
            self.post(context, Change::Restart(Idset::new()), None);
            if !is_recovery {
                self.watch_groups(context)?;
            }
        }
        if self.state.inventory.is_some() {
            self.post(context, Change::Define, None);
        }
        Ok(())
    }

    fn inventory_value(&self) -> Option<Value> {
        serde_json::to_value(&self.state.inventory.as_ref()?.set).ok()
    }

    fn get(&mut self, _: &Context, _: Empty, _: &Sender) -> Result<rpc::GetResponse, Failure> {
        let inventory = self.state.inventory.as_ref().ok_or(Errno::ENOENT)?;
        let r = self.inventory_value().ok_or(Errno::EINVAL)?;
        Ok(rpc::GetResponse { r, method: inventory.method.as_str().to_owned() })
    }
}

/// The inventory, if it is known before hardware is.
async fn find_inventory(
    context: &Context,
    settings: &Settings,
    config: &Config,
) -> Result<Option<Inventory>, Failure> {
    if let Some(set) = &settings.inventory {
        // Only hosts that are configured too are sure to be those of the file.
        let hosts = config.get("bootstrap").is_some().then(|| hostlist(context));
        return Ok(Some(Inventory::configured(set.clone(), hosts.as_ref())?));
    }
    if context.rank() != 0 {
        return inventory_of_parent(context).await;
    }
    if let Some(inventory) = enclosing::inventory(context, settings.rediscover).await? {
        return Ok(Some(inventory));
    }
    let kept = store::inventory(context.handle()).await?;
    Ok(kept.map(|set| Inventory { set, method: Method::KVS }))
}

/// What the broker above knows: its rc1 has run before ours.
async fn inventory_of_parent(context: &Context) -> Result<Option<Inventory>, Failure> {
    let response = match context.handle().rpc_upstream::<rpc::Get>(&Empty).await {
        Ok(response) => response,
        Err(failure) if failure.errno == Errno::ENOENT => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let set = ResourceSet::decode(&response.r.to_string())
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    Ok(Some(Inventory { set, method: Method::named(response.method) }))
}

fn hostlist(context: &Context) -> Hostlist {
    let hosts = context.broker().attrs().get("hostlist");
    hosts.and_then(|hosts| hosts.parse().ok()).unwrap_or_default()
}
