//! What the brokers of this host have in memory.

use clap::Args;
use flux_client::Client;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::attr;

use super::figures::figure;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(override_usage = "flux-bench memory")]
pub(crate) struct Memory {}

impl Memory {
    pub(super) async fn run(self, flux: &Client) -> Result<(), Failure> {
        let size: u32 = flux.attr("size").await?.parse().map_err(Failure::new)?;
        let here = flux.attr("hostname").await?;
        let mut sizes = Vec::new();
        for rank in 0..size {
            if attr(flux, rank, "hostname").await? == here {
                let pid = attr(flux, rank, "broker.pid").await?;
                sizes.push((rank, resident(&pid)?));
            }
        }
        if let Some((rank, megabytes)) = sizes.first() {
            figure(&format!("rank {rank} resident"), *megabytes, "MB");
        }
        let mut others: Vec<f64> = sizes.iter().skip(1).map(|(_, megabytes)| *megabytes).collect();
        others.sort_by(f64::total_cmp);
        if let (Some(median), Some(most)) = (others.get(others.len() / 2), others.last()) {
            figure("other ranks, median", *median, "MB");
            figure("other ranks, most", *most, "MB");
        }
        figure("all", sizes.iter().map(|(_, megabytes)| megabytes).sum(), "MB");
        Ok(())
    }
}

async fn attr(flux: &Client, rank: u32, name: &str) -> Result<String, Failure> {
    let request = attr::GetRequest { name: name.to_owned() };
    let response = flux.rpc::<attr::Get>(Nodeid(rank), &request).await;
    Ok(response.map_err(|e| Failure::of(format_args!("rank {rank}: {name}"), e))?.value)
}

/// In units of 1,000,000 bytes, from proc(5).
fn resident(pid: &str) -> Result<f64, Failure> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|e| Failure::of(&path, e))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|value| value.trim().parse::<f64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024.0 / 1e6)
        .ok_or_else(|| Failure::of(&path, "no VmRSS line"))
}
