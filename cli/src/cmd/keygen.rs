//! `flux keygen`: a new certificate for the overlay network.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use flux_cert::Certificate;
use jiff::Zoned;
use nix::unistd::{gethostname, getuid};

use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
#[command(override_usage = "flux-keygen [OPTIONS] [PATH]")]
pub(crate) struct Keygen {
    /// Set certificate name (default: hostname)
    #[arg(short, long)]
    name: Option<String>,
    /// Add/update comma-separated key=value metadata
    #[arg(long, value_name = "KEYVALS", value_delimiter = ',', action = ArgAction::Append)]
    meta: Vec<String>,
    path: Option<PathBuf>,
}

impl Keygen {
    pub(crate) async fn run(self, _context: Context) -> Outcome {
        if self.path.is_none() {
            eprintln!("flux-keygen: WARNING: add PATH argument to save generated certificate");
        }
        let mut certificate = Certificate::generate().map_err(Failure::new)?;
        let host = gethostname().map_err(|e| Failure::of("gethostname", e.desc()))?;
        let host = host.to_string_lossy().into_owned();
        let mut metadata = Vec::new();
        metadata.extend(self.name.map(|name| ("name".to_owned(), name)));
        metadata.extend(self.meta.iter().map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        }));
        // What the user has given stays.
        metadata.extend([
            ("name".to_owned(), host.clone()),
            ("keygen.hostname".to_owned(), host),
            ("keygen.time".to_owned(), Zoned::now().strftime("%Y-%m-%dT%H:%M:%S").to_string()),
            ("keygen.userid".to_owned(), getuid().to_string()),
            ("keygen.flux-core-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        for (key, value) in metadata {
            certificate.set_meta_default(&key, &value).map_err(|e| {
                Failure::of(format_args!("error setting certificate metadata {key}={value}"), e)
            })?;
        }
        if let Some(path) = self.path {
            certificate.save(&path).map_err(Failure::new)?;
        }
        Ok(0)
    }
}
