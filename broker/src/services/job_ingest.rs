//! `job-ingest`: where jobs come in.
//!
//! A request is given an id, verified, edited by the frobnicators and judged by the validators;
//! then the jobspec is stored and the job handed to the job manager. Jobs that are through with
//! the plugins share one store operation and one hand-over; while those are under way the next
//! batch forms, so that a lone job waits for nobody.

mod arguments;
mod batch;
mod pipeline;
mod request;
mod signature;

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::{Generator, JobId};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, PayloadError};
use flux_protocol::rpc::job_ingest as rpc;
use flux_protocol::rpc::job_manager;

use crate::call::{Call, Sender};
use crate::config::Config;
use crate::methods::Methods;
use crate::service::Service;
use batch::Batch;
use pipeline::Pipeline;
pub(crate) use pipeline::mistakes;

pub(crate) type Context = crate::context::Context<JobIngest>;

/// Requests that are judged at a time: enough to keep the plugins busy. Of a flood of submissions
/// the rest waits here, and not between the events of the jobs that run.
const WINDOW: usize = 16;

/// The service; one on each rank.
#[derive(Debug)]
pub struct JobIngest {
    generator: Generator,
    args: Vec<String>,
    pipeline: Pipeline,
    /// Pipelines of new configurations that are being loaded.
    reloads: Reloads,
    /// Requests that are to be judged, and how many are being judged.
    line: VecDeque<(request::Request, Call<rpc::SubmitResponse>)>,
    judging: usize,
    batch: Batch,
    verifier: signature::Verifier,
    shutdown: bool,
}

#[derive(Debug, Default)]
struct Reloads {
    begun: u64,
    done: u64,
}

impl Service for JobIngest {
    const NAME: &'static str = "job-ingest";
    const SERVICES: &'static [&'static str] = &["job-ingest"];
    const RELOAD_REFUSAL: &'static str = "Failed to parse config-reload request";

    async fn start(context: &Context, args: &[String]) -> Result<JobIngest, Failure> {
        let config = arguments::apply(&context.config(), args)?;
        Ok(JobIngest {
            generator: generator(context).await?,
            args: args.to_vec(),
            pipeline: Pipeline::load(context, &config).await?,
            reloads: Reloads::default(),
            line: VecDeque::new(),
            judging: 0,
            batch: Batch::default(),
            verifier: signature::Verifier::default(),
            shutdown: false,
        })
    }

    fn methods() -> Methods<JobIngest> {
        Methods::default()
            .serve_or::<rpc::Submit>(undecodable, JobIngest::submit)
            .reply::<rpc::Getinfo>(JobIngest::getinfo)
            .reply::<rpc::Shutdown>(JobIngest::shut_down)
    }

    /// Plugins that are not to be had, or refuse it, leave those in force that are.
    fn reconfigure(&mut self, context: &Context, config: Config, call: Call<Empty>) {
        let config = match arguments::apply(&config, &self.args) {
            Ok(config) => config,
            Err(failure) => return call.fail(failure),
        };
        let (loading, after) = (context.clone(), context.clone());
        self.reloads.begun += 1;
        let number = self.reloads.begun;
        context.spawn(
            async move { Pipeline::load(&loading, &config).await },
            move |ingest: &mut JobIngest, result| {
                // Of two that overlap the later counts, whichever is loaded first.
                let is_last = number > ingest.reloads.done;
                ingest.reloads.done = ingest.reloads.done.max(number);
                let result = result.map(|pipeline| {
                    if is_last {
                        ingest.pipeline = pipeline;
                    }
                    Empty
                });
                ingest.judge_next(&after);
                call.finish(result);
            },
        );
    }

    fn stats(&self, _: &Context) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "pipeline": self.pipeline.stats() }))
    }
}

fn undecodable(_: PayloadError) -> Failure {
    Failure::new(Errno::EPROTO, "error decoding job request: Protocol error")
}

/// Ids of this rank, of a clock that all ranks share and that never goes back over a restart.
async fn generator(context: &Context) -> Result<Generator, Failure> {
    let now = milliseconds();
    let rank = context.rank() % (1 << 14);
    let start = match context.rank() {
        0 => match context.handle().rpc::<job_manager::Getinfo>(&Empty).await {
            Ok(info) if info.max_jobid > 0 => JobId(info.max_jobid).timestamp_ms() + 1,
            Ok(_) => 0,
            // Without a job manager there is no job either.
            Err(failure) if failure.errno == Errno::ENOSYS => 0,
            Err(failure) => return Err(failure),
        },
        _ => context.handle().rpc_upstream::<rpc::Getinfo>(&Empty).await?.timestamp,
    };
    Generator::new(rank, start, now)
        .map_err(|error| Failure::new(Errno::EOVERFLOW, error.to_string()))
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl JobIngest {
    fn submit(
        &mut self,
        context: &Context,
        request: rpc::SubmitRequest,
        call: Call<rpc::SubmitResponse>,
    ) {
        if self.shutdown {
            let text = "job submission is disabled: instance is shutting down";
            return call.fail(Failure::new(Errno::ENOSYS, text));
        }
        // The id is the place in line: it is taken now, however long others take to be judged.
        let id = match self.generator.generate(milliseconds()) {
            Ok(id) => id,
            Err(error) => return call.fail(Failure::new(Errno::EOVERFLOW, error.to_string())),
        };
        let checked = match request::check(&request, id, call.cred()) {
            Ok(checked) => checked,
            Err(failure) => return call.fail(failure),
        };
        let owner = context.broker().owner().0;
        match signature::without_proof(&request.j, &checked) {
            Some(Ok(signed)) => self.signed(context, checked, request.j, signed, call),
            Some(Err(failure)) => call.fail(failure),
            None => {
                let verify = self.verifier.verify(request.j, owner);
                let after = context.clone();
                context.spawn(verify, move |ingest: &mut JobIngest, result| match result {
                    Ok((j, signed)) => ingest.signed(&after, checked, j, signed, call),
                    Err(failure) => call.fail(failure),
                });
            }
        }
    }

    /// Who signed is known.
    fn signed(
        &mut self,
        context: &Context,
        checked: request::Checked,
        j: String,
        signed: flux_sign::Request,
        call: Call<rpc::SubmitResponse>,
    ) {
        let request = match checked.admit(j, signed) {
            Ok(request) => request,
            Err(failure) => return call.fail(failure),
        };
        self.line.push_back((request, call));
        self.judge_next(context);
    }

    /// What comes after a new configuration is judged by it, and waits until that can be done.
    fn judge_next(&mut self, context: &Context) {
        while self.reloads.done == self.reloads.begun && self.judging < WINDOW {
            let Some((request, call)) = self.line.pop_front() else { return };
            if self.pipeline.is_empty_for(&request) {
                self.batch.add(context, request, call);
            } else {
                self.judging += 1;
                self.pipeline.submit(context, request, call);
            }
        }
    }

    fn judged(
        &mut self,
        context: &Context,
        judged: Result<request::Request, Failure>,
        call: Call<rpc::SubmitResponse>,
    ) {
        self.judging -= 1;
        match judged {
            Ok(request) => self.batch.add(context, request, call),
            Err(failure) => call.fail(failure),
        }
        self.judge_next(context);
    }

    fn getinfo(
        &mut self,
        _: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::GetinfoResponse, Failure> {
        Ok(rpc::GetinfoResponse { timestamp: self.generator.timestamp_ms(milliseconds()) })
    }

    fn shut_down(&mut self, _: &Context, _: Empty, _: &Sender) -> Result<Empty, Failure> {
        self.shutdown = true;
        Ok(Empty)
    }
}

/// The job manager is at rank 0.
const MANAGER: Nodeid = Nodeid(0);
