//! The enclosing instance, of which this one is a job.
//!
//! Rank 0 tells it how this instance is reached and which ranks it can't do without, and asks it for
//! the resources (see the resource service). This is all that is ever sent there.

use std::rc::Rc;

use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::{job_exec, job_manager};
use flux_protocol::taskmap::Taskmap;
use serde_json::json;

use crate::attrs::{Access, Attrs};
use crate::broker::Broker;
use crate::environment::Environment;
use crate::log::Severity;

/// A connection to the enclosing instance, and the job that we are there.
#[derive(Debug)]
pub struct Parent {
    pub client: Client,
    pub id: JobId,
}

/// Set `parent-uri`, `parent-kvs-namespace` and `jobid-path`. What says so in the environment is for
/// this broker alone; it is not a job's because of `FLUX_JOB_ID`, which may be anybody's.
pub fn set_attrs(attrs: &Attrs, environment: &Environment) {
    let is_job = attrs.get("jobid").is_some();
    if is_job {
        for (name, variable) in
            [("parent-uri", "FLUX_URI"), ("parent-kvs-namespace", "FLUX_KVS_NAMESPACE")]
        {
            if let Some(value) = environment.get(variable) {
                attrs.put_default(name, value, Access::Immutable);
            }
        }
    }
    let path = environment.get("FLUX_JOB_ID_PATH").filter(|_| is_job);
    attrs.put_default("jobid-path", path.unwrap_or("/".to_owned()), Access::Immutable);
    for variable in ["FLUX_URI", "FLUX_KVS_NAMESPACE", "FLUX_JOB_ID_PATH", "FLUX_PROXY_REMOTE"] {
        environment.set(variable, None);
    }
}

impl Parent {
    /// Nothing when this instance is no job of another one.
    pub async fn open(attrs: &Attrs) -> Result<Option<Parent>, Failure> {
        let (Some(uri), Some(jobid)) = (attrs.get("parent-uri"), attrs.get("jobid")) else {
            return Ok(None);
        };
        let id = JobId::parse(&jobid).map_err(|_| {
            let text = format!("Unable to parse jobid attribute '{jobid}'");
            Failure::new(Errno::EINVAL, text)
        })?;
        let client = Client::open(Some(&uri)).await.map_err(|error| {
            Failure::new(error.errno(), format!("flux_open to parent failed {error}"))
        })?;
        Ok(Some(Parent { client, id }))
    }

    /// Where this instance is reached, for `flux uri` and `flux proxy`.
    async fn set_uri(&self, attrs: &Attrs, hostname: &str) -> Result<(), Failure> {
        let local = attrs.get("local-uri").unwrap_or_default();
        let path = local.strip_prefix("local://").unwrap_or_default();
        let memo = json!({ "uri": format!("ssh://{hostname}{path}") });
        let memo = serde_json::from_value(memo).map_err(|_| Failure::from(Errno::EINVAL))?;
        let request = job_manager::MemoRequest { id: self.id, memo, volatile: false };
        self.client
            .rpc::<job_manager::Memo>(Nodeid::ANY, &request)
            .await
            .map(drop)
            .map_err(|e| Failure::new(e.errno(), format!("job-manager.memo uri: {e}")))
    }

    /// Nodes whose loss is the end of this instance.
    async fn set_critical_ranks(&self, ranks: Idset) -> Result<(), Failure> {
        let request = job_exec::CriticalRanksRequest { id: self.id, ranks: ranks.to_string() };
        match self.client.rpc::<job_exec::CriticalRanks>(Nodeid::ANY, &request).await {
            Err(e) if e.errno() != Errno::ENOSYS => {
                Err(Failure::new(e.errno(), format!("job-exec.critical-ranks: {e}")))
            }
            _ => Ok(()),
        }
    }
}

/// Tell the enclosing instance, if there is one, where we are; beside everything else.
pub fn announce(broker: &Rc<Broker>, hostname: String) {
    if broker.rank() != 0 || broker.attrs().get("parent-uri").is_none() {
        return;
    }
    let broker = broker.clone();
    tokio::task::spawn_local(async move {
        let told = tell(broker.attrs(), &hostname).await;
        if let Err(failure) = told {
            broker.log().append(Severity::Err, "broker", &failure.to_string());
        }
    });
}

async fn tell(attrs: &Attrs, hostname: &str) -> Result<(), Failure> {
    let Some(parent) = Parent::open(attrs).await? else { return Ok(()) };
    parent.set_uri(attrs, hostname).await?;
    match critical_nodes(attrs) {
        Some(ranks) => parent.set_critical_ranks(ranks).await,
        None => {
            let text = "Unable to get critical ranks, all ranks will be critical";
            Err(Failure::new(Errno::ENOENT, text))
        }
    }
}

/// Brokers as the shells that they are tasks of: there may be several on a node.
fn critical_nodes(attrs: &Attrs) -> Option<Idset> {
    let map = Taskmap::decode(&attrs.get("broker.mapping")?).ok()?;
    let ranks: Idset = attrs.get("broker.critical-ranks")?.parse().ok()?;
    ranks.iter().map(|rank| map.nodeid(rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let environment = Environment::default();
        for (name, value) in [
            ("FLUX_URI", "local:///run/x"),
            ("FLUX_KVS_NAMESPACE", "job-1"),
            ("FLUX_JOB_ID_PATH", "/f1"),
        ] {
            environment.set(name, Some(value.to_owned()));
        }
        environment
    }

    #[test]
    fn job_of_an_instance_knows_its_parent() {
        let (attrs, environment) = (Attrs::default(), environment());
        attrs.put("jobid", "f1", Access::Immutable);
        set_attrs(&attrs, &environment);
        let get = |name: &str| attrs.get(name).unwrap_or_default();
        assert_eq!(get("parent-uri"), "local:///run/x");
        assert_eq!(get("parent-kvs-namespace"), "job-1");
        assert_eq!(get("jobid-path"), "/f1");
        assert_eq!(environment.get("FLUX_URI"), None);
    }

    #[test]
    fn instance_that_is_no_job_has_no_parent() {
        let (attrs, environment) = (Attrs::default(), environment());
        set_attrs(&attrs, &environment);
        assert_eq!(attrs.get("parent-uri"), None);
        assert_eq!(attrs.get("jobid-path").as_deref(), Some("/"));
        assert_eq!(environment.get("FLUX_KVS_NAMESPACE"), None);
    }

    #[test]
    fn critical_brokers_are_told_as_nodes() {
        let attrs = Attrs::default();
        attrs.put("broker.mapping", "[[0,1,3,1],[1,1,1,1]]", Access::Immutable);
        attrs.put("broker.critical-ranks", "0,3", Access::Immutable);
        assert_eq!(critical_nodes(&attrs).unwrap().to_string(), "0-1");
    }
}
