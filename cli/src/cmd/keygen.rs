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
        let host = as_value(&host.to_string_lossy());
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

/// A host name as a certificate can hold it, which knows no underscore.
fn as_value(host: &str) -> String {
    host.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_fits_into_a_certificate() {
        assert_eq!(as_value("node_1.example.org"), "node-1.example.org");
        let mut certificate = Certificate::generate().unwrap();
        certificate.set_meta_default("name", &as_value("b\u{fc}ro_7\"")).unwrap();
    }
}
