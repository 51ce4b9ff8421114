//! The probes that every topic of a real Flux was sent, and what it answered.

use std::collections::BTreeSet;
use std::time::Duration;

use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::message::{Flags, Matchtag, Message, Nodeid, text_payload};
use flux_protocol::payload::text;
use serde_json::Value;

use crate::connection::Connection;
use crate::vector::{VectorError, directory};

const TIMEOUT: Duration = Duration::from_secs(20);
const GUEST: Credential = Credential { userid: Userid(4242), rolemask: Rolemask(2) };

/// One request, and what the answer was.
#[derive(Debug, Clone)]
pub struct Probe {
    pub topic: String,
    /// `guest_none`, `owner_empty`, `owner_none_stream` and so on.
    pub case: String,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    None,
    Error { errnum: u32, text: Option<String> },
    Ok { keys: Option<BTreeSet<String>> },
}

/// All probes of the topics for which `wanted` holds.
pub fn probes(wanted: impl Fn(&str) -> bool) -> Result<Vec<Probe>, VectorError> {
    let path = directory().join("sweep.jsonl");
    let file = std::fs::read_to_string(&path)
        .map_err(|error| VectorError::Read { path: path.clone(), error })?;
    let mut probes = Vec::new();
    for (at, line) in file.lines().enumerate() {
        let row: Value = serde_json::from_str(line).map_err(|error| VectorError::Row {
            path: path.clone(),
            line: at + 1,
            text: error.to_string(),
        })?;
        let Some(topic) = row.get("topic").and_then(Value::as_str) else { continue };
        if !wanted(topic) {
            continue;
        }
        for (case, answer) in row.as_object().into_iter().flatten() {
            if case.starts_with("guest") || case.starts_with("owner") {
                probes.push(Probe {
                    topic: topic.to_owned(),
                    case: case.clone(),
                    answer: captured(answer),
                });
            }
        }
    }
    Ok(probes)
}

fn captured(value: &Value) -> Answer {
    let Some(errnum) = value.get("errnum").and_then(Value::as_u64) else { return Answer::None };
    let errnum = u32::try_from(errnum).unwrap_or(u32::MAX);
    if errnum != 0 {
        let text = value.get("errstr").and_then(Value::as_str).map(str::to_owned);
        return Answer::Error { errnum, text };
    }
    let keys = value.get("keys").and_then(Value::as_array);
    Answer::Ok {
        keys: keys.map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
    }
}

impl Probe {
    /// Send it over the owner's `connection` and compare: what differs, if anything.
    ///
    /// That nothing is answered is seen by a second request to the same service, which services
    /// answer in order.
    pub async fn differs(&self, connection: &mut Connection) -> std::io::Result<Option<String>> {
        let answer = self.ask(connection).await?;
        let differs = answer != self.answer;
        Ok(differs.then(|| {
            format!("{} {}: captured {:?}, now {answer:?}", self.topic, self.case, self.answer)
        }))
    }

    async fn ask(&self, connection: &mut Connection) -> std::io::Result<Answer> {
        connection.send(&self.request()).await?;
        let service = self.topic.split('.').next().unwrap_or_default();
        let marker = Message::request(format!("{service}.ping"), Nodeid::ANY, Matchtag(2))
            .with_payload(Some(text_payload("{}")));
        connection.send(&marker).await?;
        let mut answer = Answer::None;
        loop {
            let Some(message) = connection.next(TIMEOUT, |_| true).await? else {
                return Err(std::io::Error::other(format!("{}: no answer to ping", self.topic)));
            };
            if message.matchtag() == Matchtag(2) {
                break;
            }
            if message.matchtag() == Matchtag(1) && answer == Answer::None {
                answer = answered(&message);
            }
        }
        if answer == Answer::None && self.answer != Answer::None {
            // Work that the service does elsewhere comes after its later answers.
            let own = |message: &Message| message.matchtag() == Matchtag(1);
            if let Some(message) = connection.next(TIMEOUT, own).await? {
                answer = answered(&message);
            }
        }
        Ok(answer)
    }

    fn request(&self) -> Message {
        let payload = self.case.contains("empty").then(|| text_payload("{}"));
        let mut message =
            Message::request(self.topic.as_str(), Nodeid::ANY, Matchtag(1)).with_payload(payload);
        if self.case.starts_with("guest") {
            message.cred = GUEST;
        }
        if self.case.ends_with("stream") {
            message.flags.set(Flags::STREAMING);
        }
        message
    }
}

fn answered(message: &Message) -> Answer {
    let text = text(message.payload.as_ref()).ok();
    if message.errnum() != 0 {
        let text = text.map(str::to_owned);
        return Answer::Error { errnum: Errno(message.errnum()).0, text };
    }
    let json = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let keys = json.as_ref().and_then(Value::as_object);
    Answer::Ok { keys: keys.map(|object| object.keys().cloned().collect()) }
}
