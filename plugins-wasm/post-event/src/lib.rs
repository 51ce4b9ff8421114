//! `job-manager.post-event.post`: the instance owner adds an event to a job's eventlog.

use flux_plugin::prelude::*;
use flux_plugin::types::RpcRequest;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Post {
    id: JobId,
    name: String,
    #[serde(default)]
    context: Option<Map<String, Value>>,
}

struct PostEvent;

impl Plugin for PostEvent {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(PostEvent)
    }
}

impl Jobtap for PostEvent {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Rpc(request) => serve(&request, effects),
            _ => Reply::Pass,
        }
    }
}

fn serve(request: &RpcRequest, effects: &mut Effects) -> Reply {
    let refusal = |errnum, text| Reply::Refuse(refuse_with(errnum, text));
    let Ok(post) = serde_json::from_str::<Post>(&request.payload) else {
        return refusal(errno::EPROTO, "Protocol error");
    };
    if post.name.is_empty() {
        return refusal(errno::EPROTO, "Protocol error");
    }
    if host::job(post.id).is_none_or(|job| job.state == JobState::Inactive) {
        return refusal(errno::ENOENT, "No such file or directory");
    }
    effects.post_event(
        post.id,
        &post.name,
        Value::Object(post.context.unwrap_or_default()).to_string(),
    );
    Reply::Respond("{}".to_owned())
}

flux_plugin::jobtap! {
    PostEvent,
    name: "post-event",
    description: "Lets the owner add events to the eventlogs of jobs",
    topics: [],
    services: ["post": "owner"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    fn post(payload: &str) -> (Reply, Effects) {
        let mut effects = Effects::default();
        let request = RpcRequest {
            token: 1,
            method: "post".into(),
            userid: 0,
            rolemask: 1,
            payload: payload.into(),
        };
        let mut plugin = PostEvent::init(&testing::context("{}", "{}")).unwrap();
        (plugin.handle(Event::Rpc(request), &mut effects), effects)
    }

    #[test]
    fn only_a_named_event_of_an_active_job_is_posted() {
        testing::reset();
        testing::put_job(testing::job(5));
        testing::put_job(Job { state: JobState::Inactive, ..testing::job(6) });
        let (reply, _) = post(r#"{"id":5,"name":"memo","context":{"a":1}}"#);
        assert!(matches!(reply, Reply::Respond(_)));
        let refused = [
            (r#"{"id":6,"name":"memo"}"#, errno::ENOENT),
            (r#"{"id":7,"name":"memo"}"#, errno::ENOENT),
            (r#"{"id":5,"name":""}"#, errno::EPROTO),
            (r#"{"id":5}"#, errno::EPROTO),
            (r#"{"id":5,"name":"memo","context":[]}"#, errno::EPROTO),
        ];
        for (payload, errnum) in refused {
            match post(payload).0 {
                Reply::Refuse(refusal) => assert_eq!(refusal.errnum, errnum, "{payload}"),
                other => panic!("{payload}: {other:?}"),
            }
        }
    }
}
