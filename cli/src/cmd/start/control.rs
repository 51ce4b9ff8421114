//! The `start` service at `FLUX_START_URI`, by which tests start and kill single brokers.
//!
//! Requests, as JSON in Flux's framing: `start.status` `{}`, `start.kill` `{rank, signum}`,
//! `start.wait` `{rank}` -> `{exit_rc}`, `start.run` `{rank}`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::frame;
use flux_protocol::message::{Kind, Message, text_payload};
use flux_protocol::payload::{decode_json, encode_json};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::failure::{Failure, strerror};

/// Requests are a few words.
const FRAME_LIMIT: usize = 1 << 16;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Status,
    Kill { rank: u32, signum: i32 },
    Wait { rank: u32 },
    Run { rank: u32 },
}

/// The right to answer one request.
#[derive(Debug)]
pub(crate) struct Reply {
    request: Message,
    out: mpsc::UnboundedSender<Message>,
}

/// The listening socket; removed when dropped.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Deserialize)]
struct Target {
    rank: u32,
    #[serde(default)]
    signum: i32,
}

impl Control {
    /// Listen at `path`; `handler` gets each request, and says false when it takes no more.
    pub(crate) fn listen(
        path: &Path,
        handler: impl Fn(Request, Reply) -> bool + Send + Sync + 'static,
    ) -> Result<Control, Failure> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .map_err(|error| Failure::of(path.display(), strerror(&error)))?;
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone()));
            }
        });
        Ok(Control { path: path.to_owned(), task })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve<F: Fn(Request, Reply) -> bool>(mut stream: UnixStream, handler: Arc<F>) {
    let own = nix::unistd::getuid().as_raw();
    let admitted = stream.peer_cred().is_ok_and(|peer| peer.uid() == own);
    let byte = if admitted { 0 } else { u8::try_from(Errno::EPERM.0).unwrap_or(1) };
    if stream.write_all(&[byte]).await.is_err() || !admitted {
        return;
    }
    let (mut read, mut write) = stream.into_split();
    let (out, mut answers) = mpsc::unbounded_channel::<Message>();
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            let mut buf = BytesMut::new();
            frame::encode(&answer, &mut buf);
            if write.write_all(&buf).await.is_err() {
                return;
            }
        }
    });
    let mut buf = BytesMut::new();
    loop {
        match frame::decode(&mut buf, FRAME_LIMIT) {
            Ok(Some(message)) => match take(message, &out, &*handler) {
                true => continue,
                false => return,
            },
            Ok(None) => {}
            Err(_) => return,
        }
        if !matches!(read.read_buf(&mut buf).await, Ok(1..)) {
            return;
        }
    }
}

fn take<F: Fn(Request, Reply) -> bool>(
    message: Message,
    out: &mpsc::UnboundedSender<Message>,
    handler: &F,
) -> bool {
    if !matches!(message.kind, Kind::Request { .. }) || !message.wants_response() {
        return true;
    }
    let request = decode(&message);
    let reply = Reply { request: message, out: out.clone() };
    match request {
        Ok(request) => handler(request, reply),
        Err(errno) => {
            reply.send(Err(errno));
            true
        }
    }
}

fn decode(message: &Message) -> Result<Request, Errno> {
    let target = || decode_json::<Target>(message.payload.as_ref()).map_err(|error| error.errno());
    match message.topic.as_str() {
        "start.status" => Ok(Request::Status),
        "start.kill" => target().map(|Target { rank, signum }| Request::Kill { rank, signum }),
        "start.wait" => target().map(|Target { rank, .. }| Request::Wait { rank }),
        "start.run" => target().map(|Target { rank, .. }| Request::Run { rank }),
        _ => Err(Errno::ENOSYS),
    }
}

impl Reply {
    /// Null is an answer without payload.
    pub(crate) fn send(self, answer: Result<Value, Errno>) {
        let response = match answer {
            Ok(Value::Null) => Message::response(&self.request, 0, None),
            Ok(value) => match encode_json(&value) {
                Ok(payload) => Message::response(&self.request, 0, payload),
                Err(error) => {
                    let text = text_payload(&error.to_string());
                    Message::response(&self.request, Errno::EPROTO.0, Some(text))
                }
            },
            Err(errno) => Message::response(&self.request, errno.0, None),
        };
        // Clients drop what has no role.
        let userid = Userid(nix::unistd::getuid().as_raw());
        let cred = Credential { userid, rolemask: Rolemask::OWNER };
        // Who asked may be gone.
        let _ = self.out.send(Message { cred, ..response });
    }
}
