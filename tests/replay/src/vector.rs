//! Captured conversations, as the files of `tests/vectors` hold them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::message::{Flags, Kind, Matchtag, Message, Nodeid, text_payload};
use serde_json::Value;

/// One file.
#[derive(Debug, Clone)]
pub struct Vector {
    pub name: String,
    pub runs: Vec<Run>,
}

/// One command, and what its clients and the broker said to each other.
#[derive(Debug, Clone)]
pub struct Run {
    /// The command line, or what a raw client did.
    pub command: String,
    /// What the command printed and returned, where it was a command.
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub rc: Option<i64>,
    /// Environment that was set for this command alone.
    pub env: BTreeMap<String, String>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToBroker,
    ToClient,
}

/// One message, or the beginning or end of a connection.
#[derive(Debug, Clone)]
pub struct Row {
    /// Line in the file, from 1.
    pub line: usize,
    pub conn: u64,
    /// Rank of the broker that the client was connected to, where not 0.
    pub rank: u32,
    pub direction: Direction,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    /// The server's first byte.
    Auth(u8),
    Eof,
    Message(Box<Message>),
}

#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}:{line}: {text}", path.display())]
    Row { path: PathBuf, line: usize, text: String },
}

// === impl Vector ===

impl Vector {
    /// Read `NAME.jsonl` of the repository's `tests/vectors`.
    pub fn load(name: &str) -> Result<Vector, VectorError> {
        Vector::read(&directory().join(format!("{name}.jsonl")))
    }

    pub fn read(path: &Path) -> Result<Vector, VectorError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| VectorError::Read { path: path.to_owned(), error })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut vector = Vector { name, runs: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            vector.add(at + 1, line).map_err(|text| VectorError::Row {
                path: path.to_owned(),
                line: at + 1,
                text,
            })?;
        }
        Ok(vector)
    }

    fn add(&mut self, line: usize, text: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if value.get("command").is_some() {
            return Ok(());
        }
        if value.get("run").is_some() {
            self.runs.push(run(&value));
            return Ok(());
        }
        let row = row(line, &value)?;
        if self.runs.is_empty() {
            self.runs.push(Run {
                command: self.name.clone(),
                stdout: None,
                stderr: None,
                rc: None,
                env: BTreeMap::new(),
                rows: Vec::new(),
            });
        }
        if let Some(run) = self.runs.last_mut() {
            run.rows.push(row);
        }
        Ok(())
    }
}

/// `tests/vectors` of the repository.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}

fn run(value: &Value) -> Run {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let env = value.get("env").and_then(Value::as_object);
    Run {
        command: text("run").unwrap_or_default(),
        stdout: text("stdout"),
        stderr: text("stderr"),
        rc: value.get("rc").and_then(Value::as_i64),
        env: env
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        rows: Vec::new(),
    }
}

fn row(line: usize, value: &Value) -> Result<Row, String> {
    let direction = match value.get("dir").and_then(Value::as_str) {
        Some("c2b") => Direction::ToBroker,
        Some("b2c") => Direction::ToClient,
        other => return Err(format!("bad direction {other:?}")),
    };
    let what = match value.get("type").and_then(Value::as_str) {
        Some("auth") => What::Auth(number(value, "byte")?),
        Some("eof") => What::Eof,
        Some(kind) => What::Message(Box::new(message(kind, value)?)),
        None => return Err("no type".to_owned()),
    };
    let optional = |key: &str| value.get(key).and_then(Value::as_u64);
    Ok(Row {
        line,
        conn: optional("conn").unwrap_or_default(),
        rank: u32::try_from(optional("rank").unwrap_or_default()).map_err(|e| e.to_string())?,
        direction,
        what,
    })
}

fn message(kind: &str, value: &Value) -> Result<Message, String> {
    let kind = match kind {
        "request" => Kind::Request {
            nodeid: Nodeid(number(value, "nodeid")?),
            matchtag: Matchtag(number(value, "matchtag")?),
        },
        "response" => Kind::Response {
            errnum: number(value, "errnum")?,
            matchtag: Matchtag(number(value, "matchtag")?),
        },
        "event" => Kind::Event { seq: number(value, "seq")? },
        "control" => {
            Kind::Control { kind: number(value, "ctype")?, status: number(value, "cstatus")? }
        }
        other => return Err(format!("unknown type {other}")),
    };
    let mut flags = Flags::default();
    for name in strings(value, "flags") {
        flags.set(flag(name).ok_or_else(|| format!("unknown flag {name}"))?);
    }
    let routes = strings(value, "routes").rev().map(|r| Bytes::copy_from_slice(r.as_bytes()));
    Ok(Message {
        kind,
        flags,
        cred: Credential {
            userid: Userid(number(value, "userid")?),
            rolemask: Rolemask(number(value, "rolemask")?),
        },
        routes: routes.collect(),
        topic: value.get("topic").and_then(Value::as_str).unwrap_or_default().into(),
        payload: payload(value)?,
    })
}

fn payload(value: &Value) -> Result<Option<Bytes>, String> {
    let Some(payload) = value.get("payload") else { return Ok(None) };
    let length = value.get("payload_len").and_then(Value::as_u64);
    match value.get("payload_enc").and_then(Value::as_str) {
        Some("json") => Ok(Some(text_payload(&payload.to_string()))),
        Some("string") => {
            let text = payload.as_str().unwrap_or_default();
            let bare = length.is_some_and(|length| length == text.len() as u64);
            Ok(Some(if bare {
                Bytes::copy_from_slice(text.as_bytes())
            } else {
                text_payload(text)
            }))
        }
        Some("base64") => {
            let bytes = BASE64_STANDARD.decode(payload.as_str().unwrap_or_default());
            Ok(Some(bytes.map_err(|error| error.to_string())?.into()))
        }
        other => Err(format!("bad payload encoding {other:?}")),
    }
}

fn flag(name: &str) -> Option<Flags> {
    Some(match name {
        "topic" => Flags::TOPIC,
        "payload" => Flags::PAYLOAD,
        "noresponse" => Flags::NORESPONSE,
        "route" => Flags::ROUTE,
        "upstream" => Flags::UPSTREAM,
        "private" => Flags::PRIVATE,
        "streaming" => Flags::STREAMING,
        "user1" => Flags::USER1,
        _ => return None,
    })
}

fn number<T: TryFrom<u64>>(value: &Value, key: &str) -> Result<T, String> {
    let number = value.get(key).and_then(Value::as_u64).ok_or_else(|| format!("no {key}"))?;
    T::try_from(number).map_err(|_| format!("{key} is out of range"))
}

fn strings<'a>(value: &'a Value, key: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    let list = value.get(key).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str)
}
