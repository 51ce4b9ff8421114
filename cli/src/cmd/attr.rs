//! `flux getattr`, `setattr`, `lsattr`.

use clap::Args;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::attr;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

#[derive(Debug, Args)]
#[command(override_usage = "flux getattr name")]
pub(crate) struct Getattr {
    name: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux setattr name value")]
pub(crate) struct Setattr {
    /// force update of attribute that doesn't support runtime changes
    #[arg(short, long)]
    force: bool,
    name: String,
    #[arg(allow_negative_numbers = true)]
    value: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux lsattr [OPTIONS]")]
pub(crate) struct Lsattr {
    /// List values with attributes
    #[arg(short = 'v', long)]
    values: bool,
}

impl Getattr {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        let value = flux.attr(&self.name).await.map_err(|e| Failure::of(&self.name, e))?;
        let value = if self.name == "parent-uri" { context.seen_from_here(value) } else { value };
        outln!("{value}");
        Ok(0)
    }
}

impl Setattr {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        let request =
            attr::SetRequest { name: self.name.clone(), value: self.value, force: self.force };
        flux.rpc::<attr::Set>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::of(&self.name, e))?;
        Ok(0)
    }
}

impl Lsattr {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        let mut names = flux.rpc::<attr::List>(Nodeid::ANY, &Empty).await?.names;
        names.sort();
        if !self.values {
            for name in names {
                outln!("{name}");
            }
            return Ok(0);
        }
        let mut values = Vec::with_capacity(names.len());
        for name in &names {
            let request = attr::GetRequest { name: name.clone() };
            values.push(flux.start::<attr::Get>(Nodeid::ANY, &request)?);
        }
        for (name, value) in names.iter().zip(values) {
            // An attribute without a value is listed all the same.
            let value = value.await.map_or_else(|_| "-".to_owned(), |response| response.value);
            outln!("{name:<40}{value}");
        }
        Ok(0)
    }
}
