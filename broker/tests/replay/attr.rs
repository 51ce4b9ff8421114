//! `attr.*`.

use flux_broker::attrs::Access;
use flux_broker::services::attr::Attr;
use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::Payload;
use flux_protocol::rpc::attr::{GetRequest, GetResponse};
use flux_replay::{Replay, Rules, Vector, What};

use crate::instance::{Instance, run};

#[test]
fn attributes_answer_as_captured() {
    run(async {
        let instance = Instance::start().with::<Attr>().await;
        let vector = Vector::load("attr").unwrap();
        put_attributes(&instance, &vector);
        let socket = instance.socket();
        Replay::new(&vector, Rules::default(), &socket).play().await.assert_equal();
        instance.sweep(|topic| topic.starts_with("attr.")).await;
        instance.stop().await;
    });
}

/// Most attributes belong to services that are not loaded here: give them the captured values.
fn put_attributes(instance: &Instance, vector: &Vector) {
    let attrs = instance.broker.attrs();
    let mut asked = String::new();
    for message in messages(vector) {
        let payload = message.payload.as_ref();
        match (message.topic.as_str(), message.kind) {
            ("attr.get", Kind::Request { .. }) => {
                asked = GetRequest::decode(payload).map_or(String::new(), |request| request.name);
            }
            ("attr.get", Kind::Response { errnum: 0, .. }) => {
                let response = GetResponse::decode(payload).unwrap();
                let access = if response.flags == 1 { Access::Immutable } else { Access::Runtime };
                attrs.put(&asked, response.value, access);
            }
            _ => {}
        }
    }
}

fn messages(vector: &Vector) -> impl Iterator<Item = &Message> {
    vector.runs.iter().flat_map(|run| &run.rows).filter_map(|row| match &row.what {
        What::Message(message) => Some(&**message),
        _ => None,
    })
}
