//! Requests to plugins: `job-manager.PLUGIN.METHOD`.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Message;
use flux_protocol::payload::text;
use flux_protocol::rpc::Who;
use serde_json::Value;

use super::super::{Context, JobManager};
use crate::call::Call;
use crate::log::Severity;
use crate::plugin::types::{Event, Reply, RpcAnswer, RpcRequest};
use crate::plugin::{CallError, Caller};

/// A request that a plugin has not answered yet.
pub(super) type Open = Call<Value>;

impl JobManager {
    /// Take a request for a method that a plugin offers; give back any other.
    pub(crate) fn plugin_request(
        &mut self,
        context: &Context,
        message: Message,
    ) -> Result<(), Message> {
        let topic = message.topic.clone();
        let Some((name, method)) = topic.method().split_once('.') else { return Err(message) };
        let Some(loaded) = self.plugins.find_service(name) else { return Err(message) };
        let services = &loaded.plugin.facts().manifest.services;
        let Some(service) = services.iter().find(|service| service.method == method) else {
            return Err(message);
        };
        let who = match service.caller {
            Caller::Owner => Who::Owner,
            Caller::User => Who::User,
        };
        let payload = text(message.payload.as_ref()).unwrap_or("{}").to_owned();
        let call: Open = Call::new(context.router().clone(), message);
        if !who.admits(call.cred()) {
            call.fail(Failure::new(Errno::EPERM, who.refusal()));
            return Ok(());
        }
        let token = self.plugins.next_token;
        self.plugins.next_token += 1;
        let request = RpcRequest {
            token,
            method: method.to_owned(),
            userid: call.cred().userid.0,
            rolemask: call.cred().rolemask.0,
            payload,
        };
        self.plugins.requests.insert(token, call);
        let name = name.to_owned();
        self.ask_plugin(context, &name, token, request);
        Ok(())
    }

    fn ask_plugin(&mut self, context: &Context, name: &str, token: u64, request: RpcRequest) {
        let place = self.plugins.loaded.iter().rposition(|l| l.plugin.name() == name);
        let Some((place, loaded)) =
            place.and_then(|place| Some((place, self.plugins.loaded.get(place)?.clone())))
        else {
            return;
        };
        let after = context.clone();
        context.spawn(
            async move { loaded.plugin.handle(vec![Event::Rpc(request)]).await },
            move |manager: &mut JobManager, answers| {
                let answer = match answers.into_iter().next() {
                    Some(Ok(answer)) => answer,
                    Some(Err(error)) => {
                        // A fault is in the log already.
                        if !matches!(error, CallError::Fault(_)) {
                            after.log(Severity::Err, error.to_string());
                        }
                        return manager.fail_request(token, Errno::EIO, &error.to_string());
                    }
                    None => return manager.fail_request(token, Errno::EIO, "no answer"),
                };
                let effects = answer.effects.into_iter().map(|effect| (place, effect)).collect();
                manager.apply_effects(&after, effects);
                match answer.reply {
                    Reply::Respond(json) => {
                        manager.answer_request(RpcAnswer { token, outcome: Ok(json) });
                    }
                    Reply::Refuse(refusal) => {
                        manager.answer_request(RpcAnswer { token, outcome: Err(refusal) });
                    }
                    Reply::Later => {}
                    _ => manager.answer_request(RpcAnswer { token, outcome: Ok(String::new()) }),
                }
            },
        );
    }

    /// A plugin's answer, at once or later. An empty text is an answer without payload.
    pub(crate) fn answer_request(&mut self, answer: RpcAnswer) {
        let Some(call) = self.plugins.requests.remove(&answer.token) else { return };
        match answer.outcome {
            Ok(json) if json.is_empty() || json == "{}" => call.reply_raw(None),
            Ok(json) => match serde_json::from_str(&json) {
                Ok(value) => call.reply(&value),
                Err(error) => {
                    let text = format!("the plugin's answer is not JSON: {error}");
                    call.fail(Failure::new(Errno::EIO, text));
                }
            },
            Err(refusal) => call.fail(Failure::new(Errno(refusal.errnum), refusal.text)),
        }
    }

    fn fail_request(&mut self, token: u64, errno: Errno, text: &str) {
        if let Some(call) = self.plugins.requests.remove(&token) {
            call.fail(Failure::new(errno, text));
        }
    }
}
