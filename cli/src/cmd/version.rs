//! `flux version`.

use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

#[derive(Debug, Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let version = env!("CARGO_PKG_VERSION");
        outln!("commands:    \t\t{version}");
        outln!("libflux-core:\t\t{version}");
        if let Some(uri) = context.env.get("FLUX_URI") {
            let flux = context.connect().await?;
            let broker = flux.attr("version").await.map_err(|e| Failure::of("version", e))?;
            outln!("broker:  \t\t{broker}");
            outln!("FLUX_URI:\t\t{uri}");
        }
        outln!("build-options:\t\t+wasm");
        Ok(0)
    }
}
