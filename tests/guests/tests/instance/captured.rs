//! What a guest of a real Flux asked for, and what he was told.

use std::time::Duration;

use flux_guests::{ALICE, User, as_user};
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::message::{Kind, Matchtag, Message, Nodeid, text_payload};
use flux_protocol::payload::text;
use flux_replay::Connection;
use serde_json::{Value, json};

use super::host::{Instance, SIZE};

/// The guest of the captured conversation.
const GUEST: u32 = 65534;

fn rows(vector: &str) -> Vec<Value> {
    let rows = vector.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.filter(|row: &Value| row.get("dir").is_some()).collect()
}

/// Connect, and do something with the connection, or with the byte of the refusal.
fn connected<T: Send + 'static>(
    instance: &Instance,
    user: User,
    work: impl AsyncFnOnce(Result<Connection, u8>) -> T + Send + 'static,
) -> T {
    let socket = instance.host.path("run/local-0");
    as_user(user, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { work(Connection::open(&socket).await.unwrap()).await })
    })
}

/// The requests of the conversation, one by one, with the credential that the guest wrote into
/// them; each message that came back then comes back now.
pub(super) fn a_guest_is_told_what_a_real_flux_tells_him(instance: &Instance) {
    let compared = connected(instance, ALICE, async |connection| {
        let mut connection = connection.unwrap();
        let (mut tag, mut compared) = (0, 0);
        for row in rows(include_str!("../../../vectors/guest-allowed.jsonl")) {
            match (row["dir"].as_str().unwrap(), row["type"].as_str()) {
                ("c2b", _) => {
                    tag += 1;
                    connection.send(&request(&row, tag)).await.unwrap();
                }
                (_, Some("auth")) => assert_eq!(row["byte"], 0),
                _ => {
                    let is = |message: &Message| match message.kind {
                        Kind::Response { matchtag, .. } => {
                            matchtag.0 == tag && row["seq"].is_null()
                        }
                        Kind::Event { .. } => !row["seq"].is_null(),
                        _ => false,
                    };
                    let message = connection.next(Duration::from_secs(60), is).await.unwrap();
                    let message = message.unwrap_or_else(|| panic!("no answer: {row}"));
                    assert_eq!(now(&message), then(&row), "{row}");
                    compared += 1;
                }
            }
        }
        compared
    });
    assert_eq!(compared, 16);
}

/// Where guests are not allowed they get a byte, and nothing else.
pub(super) fn a_guest_is_sent_away_as_by_a_real_flux(instance: &Instance) {
    let refusal = connected(instance, ALICE, async |connection| connection.map(drop));
    let rows = rows(include_str!("../../../vectors/guest-denied.jsonl"));
    assert_eq!(rows.iter().map(|row| row["byte"].clone()).collect::<Vec<_>>(), [json!(1)]);
    assert_eq!(refusal, Err(1));
}

fn request(row: &Value, tag: u32) -> Message {
    let extra = |key: &str| row["kw"][key].as_u64().map(|number| u32::try_from(number).unwrap());
    // There are fewer brokers here.
    let nodeid = extra("nodeid").map_or(Nodeid::ANY, |nodeid| Nodeid(nodeid.min(SIZE - 1)));
    let payload = Some(&row["payload"]).filter(|payload| !payload.is_null());
    let unset = Credential::UNSET;
    Message::request(row["topic"].as_str().unwrap(), nodeid, Matchtag(tag))
        .with_payload(payload.map(|payload| {
            // Names of services begin with the id of the user.
            text_payload(&payload.to_string().replace(&GUEST.to_string(), &ALICE.uid.to_string()))
        }))
        .with_cred(Credential {
            userid: extra("userid").map_or(unset.userid, Userid),
            rolemask: extra("rolemask").map_or(unset.rolemask, Rolemask),
        })
}

/// A captured message, in what does not differ from instance to instance.
fn then(row: &Value) -> Value {
    let payload = match row["payload_enc"].as_str() {
        Some("string") => row["payload"].clone(),
        Some(_) => comparable(row["topic"].as_str().unwrap(), row["payload"].clone()),
        None => Value::Null,
    };
    let errnum = row["errnum"].as_u64().unwrap_or(0);
    json!({ "topic": row["topic"], "errnum": errnum, "payload": payload })
}

fn now(message: &Message) -> Value {
    let payload = message.payload.as_ref().map_or(Value::Null, |payload| {
        let text = text(Some(payload))
            .map_or_else(|_| String::from_utf8(payload.to_vec()).unwrap(), str::to_owned);
        match serde_json::from_str(&text) {
            Ok(value) => comparable(message.topic.as_str(), value),
            Err(_) => text.into(),
        }
    });
    json!({ "topic": message.topic.as_str(), "errnum": message.errnum(), "payload": payload })
}

fn comparable(topic: &str, mut payload: Value) -> Value {
    match topic {
        "broker.ping" => {
            let object = payload.as_object_mut().unwrap();
            let count = object.len();
            object.retain(|key, _| !["route", "rank"].contains(&key.as_str()));
            assert_eq!(object.len(), count - 2, "{object:?}");
            if payload["userid"] == GUEST {
                payload["userid"] = ALICE.uid.into();
            }
        }
        "event.publish" => payload["seq"] = payload["seq"].is_u64().into(),
        "attr.get" => payload["value"] = payload["value"].is_string().into(),
        "resource.sched-status" => {
            payload = payload.as_object().unwrap().keys().cloned().collect::<Vec<_>>().into();
        }
        _ => {}
    }
    payload
}
