//! `shutdown`: stop the whole instance, from rank 0.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::shutdown as rpc;

use crate::call::{Call, Calls, Sender};
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;
use crate::state::State;

/// Calls that wait for the end are sent the log meanwhile.
#[derive(Debug, Default)]
pub struct Shutdown {
    streams: Calls<rpc::StartResponse, u32>,
}

impl Service for Shutdown {
    const NAME: &'static str = "shutdown";
    const SERVICES: &'static [&'static str] = &["shutdown"];
    const IS_MODULE: bool = false;

    async fn start(context: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        let mut lines = context.broker().log().subscribe();
        let after = context.clone();
        tokio::task::spawn_local(async move {
            while let Some(record) = lines.recv().await {
                after.later(move |shutdown: &mut Shutdown| {
                    let line = record.line();
                    for (call, level) in shutdown.streams.iter() {
                        if record.severity as u32 <= *level {
                            call.send(&rpc::StartResponse { log: line.clone() });
                        }
                    }
                });
            }
        });
        let mut state = context.broker().life().ok_or(Errno::ENOSYS)?.state();
        context.spawn(
            // The log of rc3 is in the streams; what comes after can't be sent any more.
            async move { state.wait_for(|state| *state >= State::Goodbye).await.is_ok() },
            |shutdown: &mut Shutdown, _| shutdown.end_streams(),
        );
        Ok(Shutdown::default())
    }

    fn methods() -> Methods<Self> {
        Methods::default().serve::<rpc::Start>(Shutdown::shut_down)
    }

    fn disconnect(&mut self, _: &Context<Self>, sender: &Sender) {
        self.streams.disconnect(sender);
    }
}

impl Shutdown {
    fn shut_down(
        &mut self,
        context: &Context<Self>,
        request: rpc::StartRequest,
        call: Call<rpc::StartResponse>,
    ) {
        let Some(life) = context.broker().life() else { return call.fail(Errno::ENOSYS) };
        let state = *life.state().borrow();
        if context.rank() != 0 {
            return call.fail(Failure::new(Errno::EINVAL, "shutdown may only begin on rank 0"));
        }
        if state != State::Run {
            let text = format!("shutdown cannot be initiated in state {}", state.name());
            return call.fail(Failure::new(Errno::EINVAL, text));
        }
        life.stay_down(context.broker().attrs());
        if call.is_streaming() {
            self.streams.insert(call, request.loglevel.unwrap_or(6));
        } else {
            call.reply_raw(None);
        }
        let post = flux_protocol::rpc::state_machine::PostRequest {
            event: "shutdown".to_owned(),
            error: false,
        };
        let _ = context.handle().notify::<flux_protocol::rpc::state_machine::Post>(
            flux_protocol::message::Nodeid(0),
            flux_protocol::message::Flags::default(),
            &post,
        );
    }

    fn end_streams(&mut self) {
        for (call, _) in self.streams.take(|_, _| true) {
            call.end();
        }
    }
}
