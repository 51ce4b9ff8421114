//! The way into a process: a queue that credit bounds, and the task that writes it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Event, WriteError};

/// One stream into a process.
#[derive(Debug)]
pub(super) struct Input {
    queue: mpsc::UnboundedSender<Option<Bytes>>,
    /// Bytes that may be written now.
    credit: Rc<Cell<usize>>,
    closed: Cell<bool>,
}

impl Input {
    /// Write what is queued to `stream`; credit is given at the start and as it is written.
    pub(super) fn start(
        name: Rc<str>,
        stream: impl AsyncWrite + Unpin + 'static,
        bufsize: usize,
        events: mpsc::WeakSender<Event>,
    ) -> Input {
        let (queue, data) = mpsc::unbounded_channel();
        let credit = Rc::new(Cell::new(bufsize));
        tokio::task::spawn_local(write(name, stream, data, credit.clone(), events));
        Input { queue, credit, closed: Cell::new(false) }
    }

    pub(super) fn write(&self, data: Bytes) -> Result<(), WriteError> {
        if self.closed.get() {
            return Err(WriteError::NoStream);
        }
        let credit = self.credit.get().checked_sub(data.len()).ok_or(WriteError::NoCredit)?;
        self.credit.set(credit);
        // A process that has closed its input loses what is written, as at any pipe.
        let _ = self.queue.send(Some(data));
        Ok(())
    }

    pub(super) fn close(&self) {
        if !self.closed.replace(true) {
            let _ = self.queue.send(None);
        }
    }
}

async fn write(
    name: Rc<str>,
    mut stream: impl AsyncWrite + Unpin,
    mut data: mpsc::UnboundedReceiver<Option<Bytes>>,
    credit: Rc<Cell<usize>>,
    events: mpsc::WeakSender<Event>,
) {
    let give = async |bytes: usize| {
        // A process that has ended, with all its output read, needs no credit.
        if let Some(events) = events.upgrade() {
            let _ = events.send(Event::Credit { stream: name.clone(), bytes }).await;
        }
    };
    give(credit.get()).await;
    while let Some(Some(bytes)) = data.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            break;
        }
        credit.set(credit.get() + bytes.len());
        give(bytes.len()).await;
    }
    let _ = stream.shutdown().await;
}
