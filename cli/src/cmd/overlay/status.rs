//! `flux overlay status`: ask broker after broker how its subtree is.
//!
//! Brokers behind one that is lost or offline can't be asked; they are filled in from the
//! topology as ghosts, presumed to be in the state of that one.

use std::pin::Pin;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::fsd;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::overlay::{self, ChildHealth, HealthResponse, TopologyResponse};
use tokio::sync::OnceCell;

use super::topology::{Topology, ranks};
use crate::args::{duration, within};
use crate::failure::{Failure, Outcome};
use crate::outln;
use crate::target::hostlist;
use crate::target::ranks_of_hosts;
use crate::term::{Color, paint, sgr};

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(override_usage = "flux overlay status [OPTIONS]")]
pub(super) struct Status {
    /// Check health of subtree rooted at NODEID (default 0)
    #[arg(short, long, value_name = "NODEID", default_value_t = 0)]
    rank: u32,
    /// Increase reporting detail: once=show time since current state was entered, twice=show
    /// round-trip RPC times.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Set RPC timeout, 0=disable (default 0.5s)
    #[arg(short, long, value_name = "FSD", value_parser = duration)]
    timeout: Option<Duration>,
    /// Show only the root subtree status.
    #[arg(long)]
    summary: bool,
    /// Show only the partial/degraded subtrees.
    #[arg(long)]
    down: bool,
    /// Do not indent entries and use line drawing characters to show overlay tree structure
    #[arg(long)]
    no_pretty: bool,
    /// Do not fill in presumed state of nodes that are inaccessible behind offline/lost overlay
    /// parents
    #[arg(long)]
    no_ghost: bool,
    #[command(flatten)]
    color: Color,
    /// Highlight one or more TARGETs and their ancestors.
    #[arg(short = 'H', long, value_name = "TARGET", action = ArgAction::Append)]
    highlight: Vec<String>,
    /// Wait until subtree enters STATE before reporting (full, partial, offline, degraded, lost)
    #[arg(short, long, value_name = "STATE")]
    wait: Option<String>,
}

/// A broker to show.
struct Node<'a> {
    rank: u32,
    status: &'a str,
    /// Seconds; unknown for ghosts.
    duration: Option<f64>,
    error: Option<&'a str>,
    ghost: bool,
    /// The broker itself says so, not its parent.
    asked: Option<Duration>,
    /// Number of brokers in its subtree.
    subtree: Idset,
}

/// Lines to the left of a name: one entry per level above, whether more siblings follow there.
type Indent = Vec<bool>;

struct Walk<'a> {
    flux: &'a Client,
    options: &'a Status,
    topology: Topology,
    /// Fetched when the first name is shown.
    hosts: OnceCell<Hostlist>,
    highlight: Idset,
    color: bool,
    signs: Signs,
}

/// Pieces of the drawing.
struct Signs {
    pipe: &'static str,
    tee: &'static str,
    elbow: &'static str,
}

const LINES: Signs = Signs { pipe: "│  ", tee: "├─ ", elbow: "└─ " };
const ASCII: Signs = Signs { pipe: "|  ", tee: "|- ", elbow: "`- " };

impl Status {
    pub(super) async fn run(self, flux: &Client) -> Outcome {
        if let Some(state) = &self.wait
            && !["full", "partial", "degraded", "lost", "offline"].contains(&state.as_str())
        {
            return Err(Failure::new("invalid --wait state"));
        }
        let size = flux.attr("size").await.map_err(|e| Failure::of("size", e))?;
        let size: u32 = size.parse().map_err(|e| Failure::of("size", e))?;
        // The root first: an error with it is the only one that ends the command.
        let start = Instant::now();
        let root = self.health(flux, self.rank, self.wait.as_deref()).await?;
        let hosts = OnceCell::new();
        let highlight = self.highlight(flux, &hosts, size).await?;
        let walk = Walk {
            flux,
            options: &self,
            topology: Topology::get(flux).await?,
            highlight,
            hosts,
            color: self.color.stdout(),
            signs: if flux_client::locale::is_utf8() { LINES } else { ASCII },
        };
        walk.broker(root, start.elapsed(), Vec::new()).await?;
        Ok(0)
    }

    async fn highlight(
        &self,
        flux: &Client,
        hosts: &OnceCell<Hostlist>,
        size: u32,
    ) -> Result<Idset, Failure> {
        let mut ids = Idset::new();
        for target in &self.highlight {
            let some = match Idset::decode(target) {
                Ok(ids) => ids,
                Err(_) => ranks_of_hosts(hosts.get_or_try_init(|| hostlist(flux)).await?, target)
                    .map_err(|e| Failure::of(format_args!("Error decoding {target}"), e))?,
            };
            ids.union_with(&some);
        }
        let all = Idset::first_n(size);
        let extra = ids.difference(&all);
        if extra.is_empty() {
            return Ok(ids);
        }
        let plural = if extra.count() > 1 { "s" } else { "" };
        let text = format_args!("--highlight: rank{plural} {extra} not in set {all}");
        Err(Failure::new(text))
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.timeout.unwrap_or(DEFAULT_TIMEOUT)).filter(|limit| !limit.is_zero())
    }

    /// What a broker says of its subtree, once it is in the state that is waited for.
    async fn health(
        &self,
        flux: &Client,
        rank: u32,
        wait: Option<&str>,
    ) -> Result<HealthResponse, RpcError> {
        let limit = self.limit();
        let asked = async {
            let Some(wait) = wait else {
                return flux.rpc::<overlay::Health>(Nodeid(rank), &Empty).await;
            };
            let mut stream = flux.stream::<overlay::Health>(Nodeid(rank), &Empty)?;
            loop {
                match stream.next().await? {
                    Some(health) if health.status == wait => return Ok(health),
                    Some(_) => {}
                    None => return Err(RpcError::Refused { errno: Errno::ENODATA, text: None }),
                }
            }
        };
        within(limit, asked)
            .await
            .unwrap_or(Err(RpcError::Refused { errno: Errno::ETIMEDOUT, text: None }))
    }
}

impl Walk<'_> {
    /// Show a broker that has answered, and what is below it.
    fn broker(
        &self,
        health: HealthResponse,
        took: Duration,
        indent: Indent,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + '_>> {
        Box::pin(async move {
            let node = Node {
                rank: health.rank,
                status: &health.status,
                duration: Some(health.duration),
                error: None,
                ghost: false,
                asked: Some(took),
                subtree: self.subtree(health.rank),
            };
            if !self.show(&node, &indent).await? {
                return Ok(());
            }
            let last = health.children.len();
            for (n, child) in health.children.iter().enumerate() {
                let mut indent = indent.clone();
                indent.push(n + 1 < last);
                self.child(child, indent).await?;
            }
            Ok(())
        })
    }

    /// Show a child as its parent sees it, and ask it where that makes sense.
    async fn child(&self, child: &ChildHealth, indent: Indent) -> Result<(), Failure> {
        let node = Node {
            rank: child.rank,
            status: &child.status,
            duration: Some(child.duration),
            // That a connection was lost is what `lost` says already.
            error: child.error.as_deref().filter(|e| !e.is_empty() && *e != "lost connection"),
            ghost: false,
            asked: None,
            subtree: self.subtree(child.rank),
        };
        if !self.show(&node, &indent).await? {
            return Ok(());
        }
        if !matches!(child.status.as_str(), "offline" | "lost") {
            let start = Instant::now();
            let wait = self.options.wait.as_deref();
            match self.options.health(self.flux, child.rank, wait).await {
                Ok(health) => return self.broker(health, start.elapsed(), indent).await,
                Err(e) => {
                    let time = self.rpc_time(Some(start.elapsed()));
                    let name = self.name(child.rank, &Idset::new()).await?;
                    outln!("{}{name}: {e}{time}", self.drawing(&indent));
                }
            }
        }
        if let Some(tree) = self.topology.subtree(child.rank)
            && !self.options.no_ghost
        {
            self.ghosts(tree, &child.status, &indent).await?;
        }
        Ok(())
    }

    fn ghosts<'a>(
        &'a self,
        tree: &'a TopologyResponse,
        status: &'a str,
        indent: &'a Indent,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> {
        Box::pin(async move {
            let last = tree.children.len();
            for (n, child) in tree.children.iter().enumerate() {
                let mut indent = indent.clone();
                indent.push(n + 1 < last);
                let node = Node {
                    rank: child.rank,
                    status,
                    duration: None,
                    error: None,
                    ghost: true,
                    asked: None,
                    subtree: ranks(child),
                };
                if self.show(&node, &indent).await? {
                    self.ghosts(child, status, &indent).await?;
                }
            }
            Ok(())
        })
    }

    /// Print a broker as the options want it; returns whether to go on below it.
    async fn show(&self, node: &Node<'_>, indent: &Indent) -> Result<bool, Failure> {
        if self.options.summary {
            let time = self.rpc_time(node.asked);
            outln!("{}{}{time}", self.status(node), self.since(node));
            return Ok(false);
        }
        if self.options.down && node.status == "full" {
            return Ok(false);
        }
        let alone = node.subtree.count() <= 1;
        let detailed = self.options.verbose >= 2;
        let gone = matches!(node.status, "lost" | "offline");
        if node.asked.is_some() || node.ghost || gone || (alone && !detailed) {
            let error = node.error.map(|error| format!(" {error}")).unwrap_or_default();
            outln!(
                "{}{}: {}{}{error}{}",
                self.drawing(indent),
                self.name(node.rank, &node.subtree).await?,
                self.status(node),
                self.since(node),
                self.rpc_time(node.asked)
            );
        }
        Ok(!alone || detailed)
    }

    async fn name(&self, rank: u32, subtree: &Idset) -> Result<String, Failure> {
        let hosts = self.hosts.get_or_try_init(|| hostlist(self.flux)).await?;
        let host = hosts.nth(u64::from(rank)).unwrap_or_else(|| "(null)".to_owned());
        let name = format!("{rank} {host}");
        Ok(match (subtree.intersects(&self.highlight), self.color) {
            (false, _) => name,
            (true, true) => paint(true, sgr::BOLD_BLUE, &name),
            (true, false) => format!("<<{name}>>"),
        })
    }

    fn status(&self, node: &Node<'_>) -> String {
        let color = match node.status {
            _ if node.ghost => sgr::DARK_GRAY,
            "lost" => sgr::RED,
            "offline" => sgr::YELLOW,
            status => return status.to_owned(),
        };
        paint(self.color, color, node.status)
    }

    fn since(&self, node: &Node<'_>) -> String {
        match node.duration {
            Some(seconds) if self.options.verbose >= 1 && seconds > 0.0 => {
                fsd::format(seconds).map(|text| format!(" for {text}")).unwrap_or_default()
            }
            _ => String::new(),
        }
    }

    fn rpc_time(&self, took: Option<Duration>) -> String {
        match took {
            Some(took) if self.options.verbose >= 2 => {
                format!(" ({:.3} ms)", took.as_secs_f64() * 1e3)
            }
            _ => String::new(),
        }
    }

    fn drawing(&self, indent: &Indent) -> String {
        if self.options.no_pretty {
            return String::new();
        }
        let Some((more, above)) = indent.split_last() else { return String::new() };
        let mut text: String =
            above.iter().map(|more| if *more { self.signs.pipe } else { "   " }).collect();
        text.push_str(if *more { self.signs.tee } else { self.signs.elbow });
        text
    }

    fn subtree(&self, rank: u32) -> Idset {
        self.topology.subtree(rank).map(ranks).unwrap_or_default()
    }
}
