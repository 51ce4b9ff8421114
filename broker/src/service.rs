//! A service: one task, one mailbox, one table of methods, no locks.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::Who;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::call::{Call, Sender as Caller};
use crate::config::Config;
use crate::context::Context;
use crate::handle::Handle;
use crate::loaded::{Counts, Loaded, Shared, Status};
use crate::log::Severity;
use crate::mailbox::{self, Delivery, Gate, Mailbox};
use crate::methods::Methods;
use crate::router::{Router, Sink};
use crate::services::common;
use crate::tap::{Tap, Way};

/// A broker service. Handlers run to their end without waiting; work that waits is
/// [spawned](Context::spawn).
pub trait Service: Sized + 'static {
    /// The name it is loaded by.
    const NAME: &'static str;
    /// The service names under which it takes requests.
    const SERVICES: &'static [&'static str];

    /// A module of flux-core: it has ping, stats, debug, rusage and config-reload. The broker's own
    /// services do not.
    const IS_MODULE: bool = true;

    /// What is answered to a `config-reload` without an object; `{topic}` is the topic; empty
    /// is no text.
    const RELOAD_REFUSAL: &'static str = "Failed to parse {topic} request";

    /// Who may ask for its statistics.
    const STATS: Who = Who::Anyone;

    /// Make the service; may call services that are loaded before it.
    fn start(
        context: &Context<Self>,
        args: &[String],
    ) -> impl Future<Output = Result<Self, Failure>>;

    /// The table of methods.
    fn methods() -> Methods<Self>;

    /// A request whose topic is not in the table: true when it was taken.
    fn unknown(&mut self, _context: &Context<Self>, message: Message) -> Result<(), Message> {
        Err(message)
    }

    /// A response to a request that was sent with [`Context::send_untagged`].
    fn response(&mut self, _context: &Context<Self>, _response: Message) {}

    /// An event that was subscribed to, and was published with the owner's role.
    fn event(&mut self, _context: &Context<Self>, _event: &Message) {}

    /// A client, or a broker, that made requests here has gone.
    fn disconnect(&mut self, _context: &Context<Self>, _sender: &Caller) {}

    /// Check, and take over, a new configuration. Refuse with EINVAL and a text that names the
    /// table and key.
    fn configure(&mut self, _context: &Context<Self>, _config: &Config) -> Result<(), Failure> {
        Ok(())
    }

    /// [`Service::configure`], for those who ask others who take their time. Nothing may have
    /// changed when the answer is a failure.
    fn reconfigure(&mut self, context: &Context<Self>, config: Config, call: Call<Empty>) {
        call.finish(self.configure(context, &config).map(|()| Empty));
    }

    /// The payload of `stats-get`; without it the message counts are returned.
    fn stats(&self, _context: &Context<Self>) -> Option<serde_json::Value> {
        None
    }

    /// May this user, who has the role that is asked for, see the statistics?
    fn shows_stats(&self, _cred: Credential) -> bool {
        true
    }

    /// Set counters to zero (`stats-clear`).
    fn clear_stats(&mut self) {}

    /// The last thing it does; requests that come meanwhile are answered ENOSYS.
    fn stop(self, _context: &Context<Self>) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

struct Inbox<S> {
    sender: mailbox::Sender<S>,
    tap: Tap,
    cred: Credential,
}

// === impl Inbox ===

impl<S> Sink for Inbox<S> {
    fn deliver(&self, message: Message) {
        self.tap.see(Way::Received, &message);
        let delivery = match message.kind {
            Kind::Event { .. } => Delivery::Event(message),
            Kind::Response { .. } => Delivery::Response(message),
            _ => Delivery::Request(message),
        };
        self.sender.send(delivery);
    }

    fn gate(&self) -> Option<Rc<Gate>> {
        Some(self.sender.gate().clone())
    }

    fn cred(&self) -> Credential {
        self.cred
    }
}

/// Start a service under its own name and wait until it runs.
pub async fn load<S: Service>(
    broker: &Rc<Broker>,
    name: Option<&str>,
    args: &[String],
) -> Result<Loaded, Failure> {
    let name = name.unwrap_or(S::NAME);
    let router = broker.router().of_module(name);
    let handle = Handle::new(router.clone());
    let (sender, mailbox) = mailbox::channel::<S>();
    let uuid = crate::router::new_uuid();
    let context = Context::new(name, uuid.clone(), broker.clone(), handle, sender.clone());
    let sink = Rc::new(Inbox {
        sender: sender.clone(),
        tap: router.tap().clone(),
        cred: router.owner_cred(),
    });
    router.attach(uuid.clone(), sink.clone());
    // Under another name a module has that name's service instead of its own.
    let own = |service: &str| if service == S::NAME { name } else { service }.to_owned();
    let mut names: Vec<String> = S::SERVICES.iter().map(|service| own(service)).collect();
    if !names.iter().any(|service| service == name) {
        names.push(name.to_owned());
    }
    for service in &names {
        if let Err(failure) = router.register_service(service, &uuid, sink.clone()) {
            router.detach(&uuid);
            context.handle().close();
            return Err(Failure::new(failure.errno, format!("service {service} is already there")));
        }
    }
    let shared =
        Rc::new(Shared { counts: Counts::default(), last_request: Cell::new(Instant::now()) });
    let (status_tx, status) = watch::channel(Status::Init);
    let gate = sender.gate().clone();
    let stop = Box::new(move || {
        sender.send(Delivery::Stop);
    });
    context.subscribe(&format!("{name}.stats-clear"));
    let service = match S::start(&context, args).await {
        Ok(service) => service,
        Err(failure) => {
            router.detach(&uuid);
            context.handle().close();
            return Err(failure);
        }
    };
    let _ = status_tx.send(Status::Running);
    let task = Task { context, shared: shared.clone(), status: status_tx };
    tokio::task::spawn_local(task.run(service, mailbox, router, uuid.clone()));
    let name = name.to_owned();
    Ok(Loaded { name, module: S::NAME, uuid, services: names, gate, shared, status, stop })
}

struct Task<S> {
    context: Context<S>,
    shared: Rc<Shared>,
    status: watch::Sender<Status>,
}

impl<S: Service> Task<S> {
    async fn run(self, mut service: S, mut mailbox: Mailbox<S>, router: Router, uuid: Bytes) {
        let methods = S::methods();
        while let Some(delivery) = mailbox.recv().await {
            match delivery {
                Delivery::Request(message) => self.request(&methods, &mut service, message),
                Delivery::Response(response) => {
                    self.count(1);
                    service.response(&self.context, response);
                }
                Delivery::Event(event) => {
                    self.count(2);
                    self.event(&mut service, &event);
                }
                Delivery::Work(work) => work(&mut service),
                Delivery::Stop => break,
            }
        }
        let _ = self.status.send(Status::Finalizing);
        router.detach(&uuid);
        service.stop(&self.context).await;
        self.context.handle().close();
        let _ = self.status.send(Status::Exited);
    }

    fn request(&self, methods: &Methods<S>, service: &mut S, message: Message) {
        self.count(0);
        self.shared.last_request.set(Instant::now());
        let result = methods
            .dispatch(service, &self.context, message)
            .or_else(|message| service.unknown(&self.context, message))
            .or_else(|message| {
                common::dispatch(service, &self.context, &self.shared.counts, message)
            });
        if let Err(message) = result {
            let text = format!("Unknown service method '{}'", message.topic);
            self.context.router().respond_failure(&message, &Failure::new(Errno::ENOSYS, text));
        }
    }

    /// Anybody may publish an event of any topic; a service believes the instance alone.
    fn event(&self, service: &mut S, event: &Message) {
        if !event.cred.is_owner() {
            return;
        }
        if event.topic.method() == "stats-clear" && event.topic.service() == self.context.name() {
            service.clear_stats();
            self.shared.counts.clear();
            return;
        }
        service.event(&self.context, event);
    }

    fn count(&self, kind: usize) {
        if let Some(count) = self.shared.counts.received.get(kind) {
            count.set(count.get() + 1);
        }
    }
}

/// Log a failure of something that goes on all the same.
pub fn log_failure<S: 'static>(context: &Context<S>, what: &str, result: Result<(), Failure>) {
    if let Err(failure) = result {
        context.log(Severity::Err, format!("{what}: {failure}"));
    }
}
