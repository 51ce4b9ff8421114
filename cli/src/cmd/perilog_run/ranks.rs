//! A command on each rank of the job.

use std::collections::BTreeMap;

use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::laggards::Laggards;
use flux_protocol::message::Nodeid;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_info::{self, LookupRequest};
use flux_protocol::rpc::job_manager::{self, ExplainRequest};
use flux_protocol::rpc::resource;
use flux_protocol::rpc::rexec::{
    self, ExecRequest, ExecResponse, Io, KillRequest, flags, local_flags,
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use super::{Perilog, Stop, next_signal};
use crate::cmd::exec::{bytes, imp_path};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::signal::{Ended, describe};

type End = Result<Ended, RpcError>;

/// One process.
struct OnRank {
    flux: Client,
    rank: u32,
    host: String,
    /// Of standard error, without the end of its line.
    partial: Vec<u8>,
}

impl Perilog {
    /// The highest exit code. Ranks where the command fails are drained, unless it was ended.
    pub(super) async fn ranks(&self, context: &Context, command: &str) -> Outcome {
        let flux = context.connect().await?;
        let (id, name) = (self.id.f58(), self.name);
        let ranks = self.ranks_of_job(&flux).await?;
        let hosts: Hostlist = flux.attr("hostlist").await?.parse().map_err(Failure::new)?;
        let mut cmdline: Vec<String> = command.split(',').map(str::to_owned).collect();
        if self.options.with_imp {
            cmdline.splice(0..0, [imp_path(&flux).await?, "run".to_owned()]);
        }
        self.info(format_args!("executing {cmdline:?} on ranks {ranks}"));
        let command = rexec::Command {
            cmdline,
            env: context.env.all().clone(),
            cwd: std::env::current_dir().ok().map(|dir| dir.to_string_lossy().into_owned()),
            ..rexec::Command::default()
        };
        // As a prolog of the broker's: what is run again after a crash is not to go on beside that.
        let request = ExecRequest {
            cmd: command,
            flags: flags::STDOUT | flags::STDERR,
            local_flags: local_flags::FORK_EXEC,
        };
        let mut running = BTreeMap::new();
        for rank in ranks.iter() {
            let host = hosts.nth(u64::from(rank)).unwrap_or_else(|| "unknown".to_owned());
            let process = OnRank { flux: flux.clone(), rank, host, partial: Vec::new() };
            let stop = self.stop.clone();
            running.insert(rank, tokio::spawn(process.run(request.clone(), stop)));
        }
        let (mut code, mut failed, mut offline) = (0, Idset::new(), Idset::new());
        for (rank, ended) in self.ends(&flux, &hosts, running).await? {
            let this = match ended {
                Ok(ended) => ended.code(),
                Err(e) if e.errno() == Errno::EHOSTUNREACH => {
                    offline.insert(rank);
                    continue;
                }
                Err(e) => {
                    eprintln!("{id}: {name}: rank {rank}: {e}");
                    126
                }
            };
            if this != 0 {
                failed.insert(rank);
                code = code.max(this);
            }
        }
        self.drain(&flux, &failed, &offline).await?;
        let done = ranks.difference(&failed).difference(&offline);
        if !done.is_empty() {
            self.info(format_args!("completed successfully on {done}"));
        }
        // A prolog that did not run everywhere has not succeeded; an epilog has nothing left to do.
        Ok(if !offline.is_empty() && name == "prolog" { code.max(1) } else { code })
    }

    /// How each has ended. Who asks why the job waits learns where one is not done.
    async fn ends(
        &self,
        flux: &Client,
        hosts: &Hostlist,
        mut running: BTreeMap<u32, JoinHandle<End>>,
    ) -> Result<BTreeMap<u32, End>, Failure> {
        let mut ends = BTreeMap::new();
        let mut laggards = Laggards::default();
        let mut period = interval_at(Instant::now() + Laggards::PERIOD, Laggards::PERIOD);
        while let Some(mut next) = running.first_entry() {
            tokio::select! {
                end = next.get_mut() => {
                    ends.insert(*next.key(), end.map_err(Failure::new)?);
                    next.remove();
                }
                _ = period.tick() => {
                    let active = running.iter().filter(|(_, process)| !process.is_finished());
                    let active = active.map(|(rank, _)| *rank).collect();
                    if let Some(text) = laggards.news(self.name, active, hosts) {
                        self.explain(flux, Some(text)).await;
                    }
                }
            }
        }
        if laggards.are_told() {
            self.explain(flux, None).await;
        }
        Ok(ends)
    }

    /// A job manager that does not take it is no reason to fail.
    async fn explain(&self, flux: &Client, text: Option<String>) {
        let request = ExplainRequest { id: self.id, name: "perilog".to_owned(), text };
        let _ = flux.rpc::<job_manager::Explain>(Nodeid::ANY, &request).await;
    }

    async fn ranks_of_job(&self, flux: &Client) -> Result<Idset, Failure> {
        let subject = format!("R of job {}", self.id.f58());
        let request = LookupRequest { id: self.id, keys: vec!["R".to_owned()], flags: 0 };
        let values = flux.rpc::<job_info::Lookup>(Nodeid::ANY, &request).await;
        let values = values.map_err(|e| Failure::of(&subject, e))?;
        let r = values.get("R").and_then(Value::as_str).unwrap_or_default();
        Ok(ResourceSet::decode(r).map_err(|e| Failure::of(&subject, e))?.ranks())
    }

    async fn drain(&self, flux: &Client, failed: &Idset, offline: &Idset) -> Result<(), Failure> {
        let (id, name) = (self.id.f58(), self.name);
        if !offline.is_empty() {
            eprintln!("{id}: {name}: ranks {offline} are offline");
        }
        if self.options.drain_offline {
            let reason = format!("{name} failed for jobid {id}: rank is offline");
            drain(flux, offline, reason).await?;
        }
        // Whoever ended it says nothing about the node.
        if self.is_stopped() || failed.is_empty() {
            return Ok(());
        }
        eprintln!("{id}: rank {failed} failed {name}, draining");
        drain(flux, failed, format!("{name} failed for jobid {id}")).await
    }
}

async fn drain(flux: &Client, ranks: &Idset, reason: String) -> Result<(), Failure> {
    if ranks.is_empty() {
        return Ok(());
    }
    let request = resource::DrainRequest {
        targets: ranks.to_string(),
        reason: Some(reason),
        mode: Some("update".to_owned()),
    };
    let drained = flux.rpc::<resource::Drain>(Nodeid(0), &request).await;
    drained.map_err(|e| Failure::of(format_args!("rank {ranks} can't be drained"), e))?;
    Ok(())
}

impl OnRank {
    async fn run(mut self, request: ExecRequest, mut stop: Stop) -> End {
        let mut stream = self.flux.stream::<rexec::Exec>(Nodeid(self.rank), &request)?;
        let (mut pid, mut ended) = (None, Ended::Exited(0));
        loop {
            tokio::select! {
                answer = stream.next() => match answer? {
                    Some(ExecResponse::Started { pid: started }) => {
                        pid = Some(started);
                        let signum = *stop.borrow();
                        self.kill(pid, signum)?;
                    }
                    Some(ExecResponse::Output { io, .. }) => self.output(&io),
                    Some(ExecResponse::Finished { status }) => ended = Ended::from_status(status),
                    Some(_) => {}
                    None => break,
                },
                signum = next_signal(&mut stop) => self.kill(pid, signum)?,
            }
        }
        if let Ended::Killed(signal) = ended {
            self.say(&describe(signal));
        }
        Ok(ended)
    }

    fn kill(&self, pid: Option<i64>, signum: i32) -> Result<(), RpcError> {
        if let (Some(pid), true) = (pid, signum != 0) {
            let request = KillRequest { pid, label: None, signum };
            // A process that has just ended can't be signalled, and that is fine.
            drop(self.flux.start_raw(Request::of::<rexec::Kill>(Nodeid(self.rank), &request)?)?);
        }
        Ok(())
    }

    fn output(&mut self, io: &Io) {
        let bytes = bytes(io);
        if io.stream != "stderr" {
            output::emit_bytes(&bytes);
            output::flush();
            return;
        }
        self.partial.extend(bytes);
        let whole = match self.partial.iter().rposition(|&byte| byte == b'\n') {
            _ if io.eof => self.partial.len(),
            Some(at) => at + 1,
            None => 0,
        };
        let whole: Vec<u8> = self.partial.drain(..whole).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            self.say(line.trim_end());
        }
    }

    fn say(&self, line: &str) {
        eprintln!("{} (rank {}): {line}", self.host, self.rank);
    }
}
