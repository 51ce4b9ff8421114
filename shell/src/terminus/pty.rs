//! A pseudo-terminal: the end that this process holds.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::sys;

const READ_CHUNK: usize = 4096;
const ROWS: u16 = 25;
const COLUMNS: u16 = 80;

/// What a terminal says: output of its programs, and its end.
#[derive(Debug)]
pub(crate) enum Said {
    Data(Bytes),
    /// No program has it open any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct Pty {
    leader: Arc<AsyncFd<std::fs::File>>,
    /// Path of the end that programs have.
    pub(super) follower: String,
    input: mpsc::UnboundedSender<Bytes>,
    /// Whether anybody wants to read.
    reading: watch::Sender<bool>,
}

// === impl Pty ===

impl Pty {
    /// Open one; `said` hears of it as long as [`Pty::set_reading`] is on.
    pub(super) fn open(id: u32, said: mpsc::Sender<(u32, Said)>) -> Result<Pty, nix::errno::Errno> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let leader = posix_openpt(flags)?;
        grantpt(&leader)?;
        unlockpt(&leader)?;
        let follower = ptsname_r(&leader)?;
        sys::set_window_size(leader.as_raw_fd(), ROWS, COLUMNS)?;
        let leader = std::fs::File::from(OwnedFd::from(leader));
        let leader = sys::register(leader).map_err(|_| nix::errno::Errno::EMFILE)?;
        let leader = Arc::new(leader);
        let (reading, wanted) = watch::channel(false);
        tokio::spawn(read(leader.clone(), wanted, id, said));
        let (input, queue) = mpsc::unbounded_channel();
        tokio::spawn(write(leader.clone(), queue));
        Ok(Pty { leader, follower, input, reading })
    }

    /// Read or leave what programs write in the terminal. They have to have it open by then.
    pub(super) fn set_reading(&self, on: bool) {
        self.reading.send_if_modified(|reading| std::mem::replace(reading, on) != on);
    }

    pub(super) fn write(&self, data: Bytes) {
        // After the end nobody reads.
        let _ = self.input.send(data);
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), nix::errno::Errno> {
        sys::set_window_size(self.leader.as_raw_fd(), rows, columns)?;
        // Programs that draw learn of it by a signal; not all there are.
        let _ = self.kill(libc::SIGWINCH);
        Ok(())
    }

    /// Send a signal to the programs in the foreground.
    pub(super) fn kill(&self, signum: i32) -> Result<(), nix::errno::Errno> {
        sys::signal_terminal(self.leader.as_raw_fd(), signum)
    }
}

async fn read(
    leader: Arc<AsyncFd<std::fs::File>>,
    mut wanted: watch::Receiver<bool>,
    id: u32,
    said: mpsc::Sender<(u32, Said)>,
) {
    let mut buffer = vec![0; READ_CHUNK];
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let Ok(mut ready) = leader.readable().await else { return };
        match ready.try_io(|leader| leader.get_ref().read(&mut buffer)) {
            Ok(Ok(0)) => break,
            Ok(Ok(n)) => {
                let data = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
                if said.send((id, Said::Data(data))).await.is_err() {
                    return;
                }
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            // EIO: the last program has closed it.
            Ok(Err(_)) => break,
            Err(_would_block) => {}
        }
    }
    let _ = said.send((id, Said::Closed)).await;
}

async fn write(leader: Arc<AsyncFd<std::fs::File>>, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(mut data) = queue.recv().await {
        while !data.is_empty() {
            let Ok(mut ready) = leader.writable().await else { return };
            match ready.try_io(|leader| leader.get_ref().write(&data)) {
                Ok(Ok(n)) => drop(data.split_to(n)),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}
