//! Make a connection: find the URI, connect, and read the verdict of the other side.
//!
//! The server sends one byte: 0 means welcome, anything else is an errno, after which it closes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flux_protocol::errno::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::uri::{Uri, UriError};

mod ssh;

/// Socket of the system instance's broker, used where `FLUX_URI` is not set.
const SYSTEM_URI: &str = "local:///run/flux/local";

const RETRY_COUNT: u32 = 5;
const RETRY_MIN: Duration = Duration::from_millis(16);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error("broker socket {0} was not found")]
    NotFound(PathBuf),
    #[error("{}: {errno}", path.display())]
    Connect { path: PathBuf, errno: Errno },
    /// The broker does not let this user in.
    #[error("{0}")]
    Refused(Errno),
    #[error("ssh: {0}")]
    Ssh(String),
    #[error("{name}: '{value}' is not a number")]
    Environment { name: &'static str, value: String },
    #[error("{uri}: can't find the enclosing instance: {reason}")]
    Ancestor { uri: String, reason: String },
}

impl OpenError {
    pub fn errno(&self) -> Errno {
        match self {
            OpenError::Uri(_) | OpenError::Environment { .. } => Errno::EINVAL,
            OpenError::NotFound(_) | OpenError::Ancestor { .. } => Errno::ENOENT,
            OpenError::Connect { errno, .. } | OpenError::Refused(errno) => *errno,
            OpenError::Ssh(_) => Errno::ECONNRESET,
        }
    }
}

/// `FLUX_URI`, else the socket of the system instance.
pub fn default_uri() -> String {
    std::env::var("FLUX_URI").unwrap_or_else(|_| SYSTEM_URI.to_owned())
}

/// Connect to `uri`; the stream is ready for messages.
///
/// For those who pass messages on without a look at them; everybody else wants a [`crate::Client`].
pub async fn connect(uri: &Uri) -> Result<UnixStream, OpenError> {
    match uri {
        Uri::Local(path) => {
            let mut stream = connect_local(path).await?;
            match read_verdict(&mut stream).await {
                None => Ok(stream),
                Some(errno) => Err(OpenError::Refused(errno)),
            }
        }
        Uri::Ssh { target, path, .. } if is_here(target) && Path::new(path).exists() => {
            Box::pin(connect(&Uri::Local(path.into()))).await
        }
        Uri::Ssh { target, port, path } => {
            let mut tunnel = ssh::Tunnel::start(target, *port, path)?;
            match read_verdict(&mut tunnel.stream).await {
                None => Ok(tunnel.stream),
                Some(_) => Err(OpenError::Ssh(tunnel.explain().await)),
            }
        }
    }
}

/// A host by the name of this one is this one; whoever has set `FLUX_SSH` wants it used.
fn is_here(target: &str) -> bool {
    let name = nix::unistd::gethostname().unwrap_or_default();
    std::env::var_os("FLUX_SSH").is_none() && name.to_str() == Some(target)
}

/// A broker that is about to start, or to be restarted, is worth waiting for a little.
async fn connect_local(path: &Path) -> Result<UnixStream, OpenError> {
    let mut retries = retry_count()?;
    let mut delay = RETRY_MIN;
    loop {
        let error = match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let errno = Errno::from(&error);
        let may_come = matches!(errno, Errno::ENOENT | Errno::ECONNREFUSED);
        if retries == 0 || !may_come {
            return Err(match errno {
                Errno::ENOENT => OpenError::NotFound(path.to_owned()),
                errno => OpenError::Connect { path: path.to_owned(), errno },
            });
        }
        retries -= 1;
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_MAX);
    }
}

fn retry_count() -> Result<u32, OpenError> {
    const NAME: &str = "FLUX_LOCAL_CONNECTOR_RETRY_COUNT";
    match std::env::var(NAME) {
        Ok(value) => value.parse().map_err(|_| OpenError::Environment { name: NAME, value }),
        Err(_) => Ok(RETRY_COUNT),
    }
}

async fn read_verdict(stream: &mut UnixStream) -> Option<Errno> {
    match stream.read_u8().await {
        Ok(0) => None,
        Ok(errno) => Some(Errno(u32::from(errno))),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Some(Errno::ECONNRESET),
        Err(e) => Some(Errno::from(&e)),
    }
}
