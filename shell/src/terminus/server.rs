//! Terminals without a job: what `flux terminus` leaves running while there is a session.
//!
//! Whoever starts it reads one line from its standard output, which says that the service is there
//! or why it can't be.

use std::io::Write as _;

use flux_client::{Client, Service};
use flux_protocol::message::Message;
use nix::unistd::{getuid, setsid};

use super::{Sources, Terminus};
use crate::log::Log;

/// What is printed once sessions can be asked for.
const READY: &str = "ready";

struct Server {
    service: String,
    userid: u32,
    terminus: Terminus,
    /// A session was asked for: the server ends with the last one.
    used: bool,
}

/// Offer sessions as `service` until the last has ended; the exit code.
pub(crate) async fn run(service: &str) -> i32 {
    // Signals of the terminal that it is started from are not for it. A process that leads a group
    // was started by hand, and stays where it is.
    let _ = setsid();
    match begin(service).await {
        Ok((server, requests, sources)) => {
            say(READY);
            server.serve(requests, sources).await;
            0
        }
        Err(reason) => {
            say(&reason);
            1
        }
    }
}

async fn begin(name: &str) -> Result<(Server, Service, Sources), String> {
    let flux = Client::open(None).await.map_err(|e| e.to_string())?;
    let rank = flux.attr("rank").await.map_err(|e| e.to_string())?;
    let rank = rank.parse().map_err(|_| format!("bad rank '{rank}'"))?;
    let requests = flux.register(name).await;
    let requests = requests.map_err(|e| format!("{name}: {}", e.errno()))?;
    let (terminus, sources) = Terminus::named(name.to_owned(), rank, &flux, &Log::new());
    let server =
        Server { service: name.to_owned(), userid: getuid().as_raw(), terminus, used: false };
    Ok((server, requests, sources))
}

impl Server {
    async fn serve(mut self, mut requests: Service, mut sources: Sources) {
        while !(self.used && self.terminus.is_empty()) {
            tokio::select! {
                Some((id, said)) = sources.said.recv() => {
                    self.terminus.said(id, &said);
                }
                Some((id, status)) = sources.exits.recv() => self.terminus.exited(id, status),
                request = requests.next() => match request {
                    Ok(request) => self.request(&request),
                    // The broker has gone.
                    Err(_) => return,
                },
            }
        }
        // Who comes now is told that there is no server.
        let _ = requests.remove().await;
    }

    fn request(&mut self, request: &Message) {
        let method = request.topic.as_str().get(self.service.len() + 1..).unwrap_or_default();
        self.used |= matches!(method, "new" | "kill-server");
        let method = method.to_owned();
        self.terminus.request(request, &method, self.userid);
    }
}

fn say(line: &str) {
    // Who has started us may have gone, and the sessions are for others, too.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
