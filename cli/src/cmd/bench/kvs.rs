//! Commits and lookups of small values.

use clap::Args;
use flux_client::Client;
use flux_client::kvs::{Root, Transaction, get};
use flux_protocol::rpc::kvs::{PRIMARY, commit};

use super::rounds::Rounds;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(override_usage = "flux-bench kvs [OPTIONS]")]
pub(crate) struct Kvs {
    /// Number of commits and of lookups
    #[arg(short = 'n', long, value_name = "N", default_value_t = 2_000)]
    count: usize,
    /// How many at a time in the second part
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    parallel: usize,
    /// Size of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
}

impl Kvs {
    pub(super) async fn run(self, flux: &Client) -> Result<(), Failure> {
        let dir = format!("bench-{}", std::process::id());
        let measured = self.measure(flux, &dir).await;
        let mut clean = Transaction::new();
        clean.unlink(&dir);
        clean.commit(flux, PRIMARY, 0).await?;
        measured
    }

    async fn measure(&self, flux: &Client, dir: &str) -> Result<(), Failure> {
        let rounds = Rounds { count: self.count, parallel: self.parallel };
        rounds.measure("commit", |round| self.commit(flux, dir, round, 0)).await?;
        let few = Rounds { count: self.count.div_ceil(10), parallel: self.parallel };
        few.measure("commit to disk", |round| self.commit(flux, dir, round, commit::SYNC)).await?;
        let lookup = |round| {
            let (flux, key) = (flux.clone(), format!("{dir}.{round}"));
            async move {
                get(&flux, Root::Namespace(PRIMARY), &key).await?;
                Ok(())
            }
        };
        rounds.measure("lookup", lookup).await
    }

    fn commit(
        &self,
        flux: &Client,
        dir: &str,
        round: usize,
        flags: u32,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let flux = flux.clone();
        let mut transaction = Transaction::new();
        // Values that differ, since equal ones are stored once.
        let value = format!("{round:0width$}", width = self.size);
        transaction.put(&format!("{dir}.{round}"), value.as_bytes());
        async move {
            transaction.commit(&flux, PRIMARY, flags).await?;
            Ok(())
        }
    }
}
