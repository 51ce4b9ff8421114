//! A double of `job-exec` that runs nothing: `sleep` lasts until it is signalled, `false` fails,
//! and all else ends well at once.

use std::collections::HashMap;

use flux_broker::call::Call;
use flux_broker::context::Context;
use flux_broker::methods::Methods;
use flux_broker::service::Service;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Message;
use flux_protocol::payload::{Empty, Object, decode_json};
use flux_protocol::rpc::job_exec::{self as rpc, StartEvent, StartResponse};
use flux_protocol::rpc::job_manager;
use serde_json::Value;

pub(crate) struct Execution {
    running: HashMap<JobId, Call<StartResponse>>,
}

impl Service for Execution {
    const NAME: &'static str = "job-exec";
    const SERVICES: &'static [&'static str] = &["job-exec"];

    async fn start(context: &Context<Execution>, _: &[String]) -> Result<Execution, Failure> {
        context.subscribe("job-exception");
        context.subscribe("shell-");
        let hello =
            job_manager::ExecHelloRequest { service: "job-exec".to_owned(), simulates: false };
        let handle = context.handle().clone();
        context.spawn(
            async move { handle.rpc::<job_manager::ExecHello>(&hello).await },
            |_: &mut Execution, result| {
                result.unwrap();
            },
        );
        Ok(Execution { running: HashMap::new() })
    }

    fn methods() -> Methods<Execution> {
        Methods::default()
            .serve::<rpc::Start>(Execution::begin)
            .reply::<rpc::Expiration>(|_, _, _, _| Ok(Empty))
    }

    fn event(&mut self, _: &Context<Execution>, event: &Message) {
        let payload: Object = decode_json(event.payload.as_ref()).unwrap_or_default();
        let number = |key: &str| payload.get(key).and_then(Value::as_u64);
        if event.topic.as_str() == "job-exception" {
            if number("severity") == Some(0) {
                self.end(JobId(number("id").unwrap()), libc::SIGTERM);
            }
            return;
        }
        let id = event.topic.as_str().trim_start_matches("shell-").trim_end_matches(".kill");
        if let Ok(id) = id.parse() {
            self.end(JobId(id), i32::try_from(number("signum").unwrap()).unwrap());
        }
    }
}

impl Execution {
    fn begin(
        &mut self,
        _: &Context<Execution>,
        request: rpc::StartRequest,
        call: Call<StartResponse>,
    ) {
        let id = request.id;
        let jobspec: Value = serde_json::from_str(request.jobspec.get()).unwrap();
        let command = jobspec.pointer("/tasks/0/command/0").and_then(Value::as_str).unwrap();
        call.send(&StartResponse { id, event: StartEvent::Start {} });
        self.running.insert(id, call);
        match command {
            "sleep" => {}
            "false" => self.end(id, 256),
            _ => self.end(id, 0),
        }
    }

    fn end(&mut self, id: JobId, status: i32) {
        let Some(call) = self.running.remove(&id) else { return };
        call.send(&StartResponse { id, event: StartEvent::Finish { status } });
        let (ranks, is_final) = ("all".to_owned(), true);
        call.send(&StartResponse { id, event: StartEvent::Release { ranks, is_final } });
        call.into_request();
    }
}
