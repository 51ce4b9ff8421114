//! A client's connection, without any of a client's comfort: messages in, messages out.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use flux_protocol::frame;
use flux_protocol::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const FRAME_LIMIT: usize = 1 << 30;

/// A connection to a broker's local socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    buf: BytesMut,
    /// Received, and not taken yet.
    pub(crate) received: VecDeque<Message>,
    /// Requests to a service that this client registered, until they are answered.
    pub(crate) open_requests: Vec<Message>,
}

impl Connection {
    /// Connect, and read the server's first byte: `Err` with that byte when it is a refusal.
    pub async fn open(path: &Path) -> std::io::Result<Result<Connection, u8>> {
        let mut stream = UnixStream::connect(path).await?;
        let byte = stream.read_u8().await?;
        if byte != 0 {
            return Ok(Err(byte));
        }
        Ok(Ok(Connection {
            stream,
            buf: BytesMut::new(),
            received: VecDeque::new(),
            open_requests: Vec::new(),
        }))
    }

    pub async fn send(&mut self, message: &Message) -> std::io::Result<()> {
        let mut buf = BytesMut::new();
        frame::encode(message, &mut buf);
        self.stream.write_all(&buf).await
    }

    /// Receive at least one more message. False when the connection has closed, or nothing came
    /// for `timeout`.
    pub async fn receive(&mut self, timeout: Duration) -> std::io::Result<bool> {
        let before = self.received.len();
        loop {
            while let Some(message) =
                frame::decode(&mut self.buf, FRAME_LIMIT).map_err(std::io::Error::other)?
            {
                self.received.push_back(message);
            }
            if self.received.len() > before {
                return Ok(true);
            }
            match tokio::time::timeout(timeout, self.stream.read_buf(&mut self.buf)).await {
                Ok(Ok(0)) | Err(_) => return Ok(false),
                Ok(result) => result?,
            };
        }
    }

    /// The next message that `wanted` accepts; others stay queued.
    pub async fn next(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&Message) -> bool,
    ) -> std::io::Result<Option<Message>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.received.iter().skip(seen).position(&mut wanted) {
                return Ok(self.received.remove(seen + at));
            }
            seen = self.received.len();
            if !self.receive(timeout).await? {
                return Ok(None);
            }
        }
    }

    /// The request that a response of this client answers; the last one of a stream ends it.
    pub(crate) fn answered(&mut self, response: &Message) -> Option<Message> {
        let at = self.open_requests.iter().position(|request| {
            request.topic == response.topic && request.matchtag() == response.matchtag()
        })?;
        let streaming = response.is_streaming() && response.errnum() == 0;
        if streaming {
            self.open_requests.get(at).cloned()
        } else {
            Some(self.open_requests.remove(at))
        }
    }
}
