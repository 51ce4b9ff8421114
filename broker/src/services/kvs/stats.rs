//! The numbers of `kvs.stats-get`.

use serde_json::{Map, Value, json};

use super::Kvs;
use super::root::Root;
use crate::tstat::Tstat;

impl Kvs {
    pub(super) fn statistics(&self) -> Value {
        let mut sizes = Tstat::default();
        let mut total = 0;
        for size in self.blobs.sizes() {
            sizes.push(size as f64 / 1000.0);
            total += size;
        }
        let namespaces: Map<String, Value> =
            self.roots.values().map(|root| (root.name.clone(), namespace(root))).collect();
        json!({
            "cache": {
                "obj size total (MiB)": total as f64 / 1_048_576.0,
                "obj size (KiB)": summary(&sizes),
                "#obj dirty": 0,
                "#obj incomplete": 0,
                "#faults": self.faults,
            },
            "namespace": namespaces,
            "transaction-opcount": {"commit": summary(&self.commit_ops)},
            "pending_requests": self.pending,
        })
    }
}

fn namespace(root: &Root) -> Value {
    let applying = root.batch.as_ref().map_or(0, |batch| batch.transactions.len());
    json!({
        "#versionwaiters": root.versions.len(),
        "#no-op stores": root.noop_stores,
        "#transactions": root.relayed.len() + root.queue.len() + applying,
        "#readytransactions": root.queue.len(),
        "store revision": root.seq,
    })
}

fn summary(stat: &Tstat) -> Value {
    json!({
        "count": stat.count(),
        "min": stat.min() as i64,
        "mean": stat.mean(),
        "stddev": stat.stddev(),
        "max": stat.max() as i64,
    })
}
