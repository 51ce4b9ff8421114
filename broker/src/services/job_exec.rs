//! `job-exec`: runs jobs (RFC 32).
//!
//! A job gets a namespace of its own in the KVS, and a shell on each of its nodes, started through
//! `rexec` there; or, for tests of schedulers, its execution is [simulated](simulate). What
//! happens goes to the job manager in responses to the start request, and to the job's
//! `exec.eventlog`.

mod barrier;
mod guest;
mod imp;
mod kill;
mod run;
mod settings;
mod shells;
mod simulate;
mod timer;
mod watch;

use std::collections::HashMap;
use std::rc::Rc;

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Message;
use flux_protocol::payload::{Empty, decode_json};
use flux_protocol::rpc::Who;
use flux_protocol::rpc::job_exec as rpc;
use flux_protocol::rpc::{job_manager, kvs};
use serde::Deserialize;

use crate::call::{Call, Sender};
use crate::config::Config;
use crate::config::execution::{METHOD, SERVICE};
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use run::Run;
use settings::Settings;

pub(crate) type Context = crate::context::Context<JobExec>;

/// The service.
#[derive(Debug)]
pub struct JobExec {
    /// Of the module, which go before the configuration.
    args: Vec<String>,
    settings: Rc<Settings>,
    jobs: HashMap<JobId, Rc<Run>>,
}

/// What the `job-exception` event says.
#[derive(Deserialize)]
struct Exception {
    id: JobId,
    severity: u32,
    #[serde(rename = "type")]
    kind: String,
    /// wait(2) status of the task for which it was raised.
    wait_status: Option<i32>,
}

impl Service for JobExec {
    const NAME: &'static str = "job-exec";
    const SERVICES: &'static [&'static str] = &["job-exec"];
    const STATS: Who = Who::Owner;
    const RELOAD_REFUSAL: &'static str = "Error parsing new config: Protocol error";

    async fn start(context: &Context, args: &[String]) -> Result<JobExec, Failure> {
        let settings = Rc::new(Settings::new(&context.config(), args)?);
        context.subscribe("job-exception");
        let hello =
            job_manager::ExecHelloRequest { service: JobExec::NAME.to_owned(), simulates: true };
        let handle = context.handle().clone();
        // In a later turn, when start requests can be taken.
        let after = context.clone();
        context.spawn(
            async move { handle.rpc::<job_manager::ExecHello>(&hello).await },
            move |_: &mut JobExec, result| {
                if let Err(failure) = result {
                    after.log(crate::log::Severity::Err, format!("exec-hello: {failure}"));
                }
            },
        );
        Ok(JobExec { args: args.to_vec(), settings, jobs: HashMap::new() })
    }

    fn methods() -> Methods<JobExec> {
        Methods::default()
            .serve::<rpc::Start>(JobExec::start_job)
            .reply::<rpc::Expiration>(JobExec::expiration)
            .reply::<rpc::CriticalRanks>(JobExec::critical_ranks)
            .reply::<rpc::Override>(JobExec::by_hand)
    }

    /// The barrier of the shells is asked for with the no-response flag, and answered all the
    /// same, so that the table can't serve it.
    fn unknown(&mut self, context: &Context, message: Message) -> Result<(), Message> {
        match message.topic.method() {
            "shell-barrier" => {
                self.shell_barrier(context, message);
                Ok(())
            }
            _ => Err(message),
        }
    }

    fn event(&mut self, context: &Context, event: &Message) {
        let Ok(exception) = decode_json::<Exception>(event.payload.as_ref()) else { return };
        if exception.severity == 0
            && let Some(run) = self.jobs.get(&exception.id)
        {
            run.exception(context, &exception.kind, exception.wait_status);
        }
    }

    fn configure(&mut self, _: &Context, config: &Config) -> Result<(), Failure> {
        self.settings = Rc::new(Settings::new(config, &self.args)?);
        Ok(())
    }

    fn stats(&self, _: &Context) -> Option<serde_json::Value> {
        let settings = &self.settings;
        let jobs: serde_json::Map<String, serde_json::Value> =
            self.jobs.iter().map(|(id, run)| (id.f58(), run.stats())).collect();
        Some(serde_json::json!({
            "method": METHOD,
            "kill-timeout": settings.kill_timeout,
            "term-signal": signal_name(settings.term_signal),
            "kill-signal": signal_name(settings.kill_signal),
            "max-kill-count": settings.max_kill_count,
            "max-kill-timeout": settings.max_kill_timeout.unwrap_or(-1.0),
            "effective-max-kill-timeout": settings.patience(),
            "jobs": jobs,
            "config": {
                "default_job_shell": settings.job_shell(),
                "flux_imp_path": settings.imp,
                "exec_service": SERVICE,
                "default_barrier_timeout": settings.barrier_timeout,
                "shell_exit_timeout": settings.shell_exit_timeout,
            },
        }))
    }

    /// What the KVS was given and nobody waited for is in it before the service goes.
    async fn stop(self, context: &Context) {
        let none = guest::commit(context.handle(), kvs::PRIMARY, 0, Vec::new());
        if let Err(failure) = none.await {
            context.log(Severity::Err, format!("could not store the last logs: {failure}"));
        }
    }
}

impl JobExec {
    fn start_job(
        &mut self,
        context: &Context,
        request: rpc::StartRequest,
        call: Call<rpc::StartResponse>,
    ) {
        let id = request.id;
        let run = match Run::new(request, call, self.settings.clone()) {
            Ok(run) => Rc::new(run),
            // The call is answered with an exception, and released.
            Err(()) => return,
        };
        self.jobs.insert(id, run.clone());
        let after = context.clone();
        context.spawn(run.execute(after), move |exec: &mut JobExec, ()| {
            exec.jobs.remove(&id);
        });
    }

    fn expiration(
        &mut self,
        context: &Context,
        request: rpc::ExpirationRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let run = self.jobs.get(&request.id).ok_or(Errno::ENOENT)?;
        if request.expiration < 0.0 {
            return Err(Errno::EINVAL.into());
        }
        run.set_expiration(request.expiration);
        let (id, expiration) = (request.id.f58(), request.expiration);
        context.log(Severity::Debug, format!("updated expiration of {id} to {expiration:.2}"));
        Ok(Empty)
    }

    fn critical_ranks(
        &mut self,
        _: &Context,
        request: rpc::CriticalRanksRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        let run = self.jobs.get(&request.id).ok_or(Errno::ENOENT)?;
        if !sender.cred.authorizes(Userid(run.userid())) {
            return Err(Errno::EPERM.into());
        }
        let ranks = request.ranks.parse().map_err(|_| Errno::EPROTO)?;
        run.set_critical_ranks(ranks);
        Ok(Empty)
    }

    /// Only whose job it is may say how it goes.
    fn by_hand(
        &mut self,
        _: &Context,
        request: rpc::OverrideRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        let run = self.jobs.get(&request.jobid);
        let run = run.ok_or_else(|| Failure::new(Errno::ENOENT, "Job not found"))?;
        if sender.cred.userid != Userid(run.userid()) {
            return Err(Failure::new(Errno::EPERM, "Permission denied"));
        }
        run.by_hand(&request.event, request.status.unwrap_or(0))?;
        Ok(Empty)
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}
