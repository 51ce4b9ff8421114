//! `config`: the configuration of the instance, read anew and passed on.
//!
//! ```text
//! rank 0:   reload (files), load (object) -> check all tables -> ask all modules, then the broker
//!             -> all accept: take it over, tell those who follow
//!             -> one refuses: those who had accepted get the old one back, and nothing changes
//! others:   follow the parent, and do the same with what it sends
//! ```
//!
//! One change is made at a time; the others wait in the order in which they came.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Empty, Object, Payload, PayloadError};
use flux_protocol::rpc::config as rpc;

use crate::boot;
use crate::broker::Broker;
use crate::call::{Call, Calls, Sender};
use crate::config::{Config, tables};
use crate::context::Context;
use crate::handle::{Handle, Responses};
use crate::log::Severity;
use crate::methods::Methods;
use crate::plugin::{check_pinned, default_path};
use crate::service::Service;

/// How long to wait before the parent is asked again, when it is not there. This broker does not go
/// on before it has the answer, so it is short.
const PARENT_RETRY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct ConfigService {
    followers: Calls<Object, ()>,
    waiting: VecDeque<Change>,
    busy: bool,
    parent: Option<tokio::task::JoinHandle<()>>,
}

/// A new configuration, and who wants to know what becomes of it.
#[derive(Debug)]
struct Change {
    source: Source,
    call: Option<Call<Empty>>,
}

#[derive(Debug)]
enum Source {
    Files(PathBuf),
    Object(Object),
}

impl Service for ConfigService {
    const NAME: &'static str = "config";
    const SERVICES: &'static [&'static str] = &["config"];

    async fn start(context: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        let parent =
            (context.rank() > 0).then(|| tokio::task::spawn_local(follow_parent(context.clone())));
        Ok(ConfigService {
            followers: Calls::default(),
            waiting: VecDeque::new(),
            busy: false,
            parent,
        })
    }

    fn methods() -> Methods<Self> {
        Methods::default()
            .serve::<rpc::Get>(Self::get)
            .serve_or::<rpc::Load>(load_refusal, Self::load)
            .serve::<rpc::Reload>(Self::reload)
    }

    fn disconnect(&mut self, _: &Context<Self>, sender: &Sender) {
        self.followers.disconnect(sender);
    }

    async fn stop(mut self, _: &Context<Self>) {
        if let Some(parent) = self.parent.take() {
            parent.abort();
        }
        for (call, ()) in self.followers.take(|_, ()| true) {
            call.end();
        }
    }
}

fn load_refusal(_: PayloadError) -> Failure {
    Failure::new(Errno::EPROTO, "error decoding config.load request")
}

/// Take over what the parent has, now and whenever it changes. One that does not answer is asked
/// again: this broker does not go on without. That it is lost is for the state machine to see.
async fn follow_parent(context: Context<ConfigService>) {
    let patience = context.broker().attrs().duration("broker.quorum-warn");
    loop {
        let flags = Flags::UPSTREAM | Flags::STREAMING;
        let handle = context.handle();
        if let Ok(mut stream) = handle.send::<rpc::Get>(Nodeid(context.rank()), flags, &Empty) {
            let mut patience = patience;
            while let Some(object) = next_of_parent(&context, &mut stream, patience.take()).await {
                let again = context.clone();
                context.later(move |config: &mut ConfigService| {
                    let source = Source::Object(object);
                    config.change(&again, Change { source, call: None });
                });
            }
        }
        tokio::time::sleep(PARENT_RETRY).await;
    }
}

/// None: the parent is gone, or has not answered for so long.
async fn next_of_parent(
    context: &Context<ConfigService>,
    stream: &mut Responses<rpc::Get>,
    patience: Option<Duration>,
) -> Option<Object> {
    let Some(patience) = patience else { return stream.next().await.ok() };
    let answer = tokio::time::timeout(patience, stream.next()).await;
    let answer = answer.inspect_err(|_| {
        let text = "the parent does not tell its configuration: it is asked again";
        context.log(Severity::Warning, text);
    });
    answer.ok()?.ok()
}

impl ConfigService {
    fn get(&mut self, context: &Context<Self>, _: Empty, call: Call<Object>) {
        let config = context.config();
        if call.is_streaming() {
            call.send(config.object());
            self.followers.insert(call, ());
        } else {
            call.reply(config.object());
        }
    }

    fn load(&mut self, context: &Context<Self>, object: Object, call: Call<Empty>) {
        self.request(context, Source::Object(object), call);
    }

    /// Without files there is nothing to read, and nothing changes.
    fn reload(&mut self, context: &Context<Self>, _: Empty, call: Call<Empty>) {
        match context.broker().attrs().get("config.path") {
            Some(path) => self.request(context, Source::Files(path.into()), call),
            None if context.rank() > 0 => call.fail(only_on_rank_0()),
            None => call.reply(&Empty),
        }
    }

    fn request(&mut self, context: &Context<Self>, source: Source, call: Call<Empty>) {
        match context.rank() {
            0 => self.change(context, Change { source, call: Some(call) }),
            _ => call.fail(only_on_rank_0()),
        }
    }

    fn change(&mut self, context: &Context<Self>, change: Change) {
        self.waiting.push_back(change);
        self.next(context);
    }

    fn next(&mut self, context: &Context<Self>) {
        if self.busy {
            return;
        }
        let Some(Change { source, call }) = self.waiting.pop_front() else { return };
        self.busy = true;
        let (broker, handle) = (context.broker().clone(), context.handle().clone());
        let after = context.clone();
        context.spawn(
            async move { apply(&broker, &handle, source).await },
            move |config: &mut ConfigService, result| config.done(&after, result, call),
        );
    }

    fn done(
        &mut self,
        context: &Context<Self>,
        result: Result<Option<Rc<Config>>, Failure>,
        call: Option<Call<Empty>>,
    ) {
        self.busy = false;
        if let Ok(Some(old)) = &result {
            let config = context.config();
            for warning in config.warnings() {
                context.log(Severity::Warning, warning);
            }
            if context.rank() == 0 {
                for key in rpc::kept_until_restart(old.object(), config.object()) {
                    context.log(Severity::Warning, format!("{key}: changes at the next start"));
                }
            }
            for (follower, ()) in self.followers.iter() {
                follower.send(config.object());
            }
        }
        match (call, result) {
            (Some(call), result) => call.finish(result.map(|_| Empty)),
            (None, Err(failure)) => {
                context.log(Severity::Err, format!("parent update: {failure}"));
                context.broker().set_config_in_sync();
            }
            (None, Ok(changed)) => {
                context.broker().set_config_in_sync();
                let what = if changed.is_some() { "applied" } else { "ignored: no change" };
                context.log(Severity::Debug, format!("parent update {what}"));
            }
        }
        self.next(context);
    }
}

fn only_on_rank_0() -> Failure {
    Failure::new(Errno::EINVAL, "configuration can only be changed on rank 0")
}

/// Read, check, ask all, take over. Returns what was there before, if anything has changed.
async fn apply(
    broker: &Rc<Broker>,
    handle: &Handle,
    source: Source,
) -> Result<Option<Rc<Config>>, Failure> {
    let config = match source {
        Source::Object(object) => {
            let config = Config::from_object(object);
            if config == *broker.config() {
                return Ok(None);
            }
            tables::check(&config).map_err(|r| Failure::new(Errno::EINVAL, r.to_string()))?;
            config
        }
        Source::Files(path) => read(path).await?,
    };
    let old = broker.config();
    if config == *old {
        return Ok(None);
    }
    let modules = broker.modules().list_all();
    let names = modules.iter().map(|module| module.name.as_str()).filter(|name| *name != "config");
    let mut told = Vec::new();
    for name in names.chain(["broker"]) {
        if let Err(failure) = tell(broker, handle, name, &config).await {
            for name in told {
                // It had this configuration before, so it takes it again.
                if let Err(failure) = tell(broker, handle, name, &old).await {
                    let text = format!("{name} does not take back what it had: {failure}");
                    broker.log().append(Severity::Err, "config", &text);
                }
            }
            let place = config.place_of(&failure.to_string());
            let text = format!("error updating {name}: {place}{failure}");
            return Err(Failure::new(failure.errno, text));
        }
        told.push(name);
    }
    broker.set_config(Rc::new(config));
    Ok(Some(old))
}

async fn read(path: PathBuf) -> Result<Config, Failure> {
    // A file server that does not answer must not stop the broker.
    let read = tokio::task::spawn_blocking(move || {
        let config = Config::load(&path)?;
        config.check()?;
        let network = boot::network_of(&config).map(drop);
        let stopper = network.map_err(|(key, text)| format!("{}{text}", config.place(key)));
        let pinned = check_pinned(config.object(), &default_path());
        let pinned = pinned.map_err(|text| format!("{}{text}", config.place_of(&text)));
        let pinned = stopper.and(pinned);
        Ok::<_, crate::config::ConfigError>((config, pinned))
    });
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let result = read.await.map_err(|error| Failure::new(Errno::EIO, error.to_string()))?;
    let (config, pinned) =
        result.map_err(|error| invalid(format!("Config file error: {error}")))?;
    pinned.map_err(invalid)?;
    Ok(config)
}

/// A module that knows no configuration has nothing against it.
async fn tell(
    broker: &Broker,
    handle: &Handle,
    name: &str,
    config: &Config,
) -> Result<(), Failure> {
    let topic = format!("{name}.config-reload");
    let payload = config.object().encode()?;
    let rank = Nodeid(broker.rank());
    let mut responses = handle.send_raw::<()>(topic, rank, Flags::default(), payload);
    match responses.next_raw().await {
        Err(failure) if failure.errno != Errno::ENOSYS => Err(failure),
        _ => Ok(()),
    }
}
