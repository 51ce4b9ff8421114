//! Requests and responses of a real Flux, read with the types of the table of topics.
//!
//! What a row's types decode they also encode again: the same keys and values, up to defaults.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use flux_protocol::payload::Payload;
use flux_protocol::rpc::{self, Method};
use serde_json::Value;

type Check = fn(&[u8]) -> Result<Vec<u8>, String>;

struct Row {
    request: Check,
    response: Check,
}

fn recode<T: Payload>(payload: &[u8]) -> Result<Vec<u8>, String> {
    let payload = Bytes::copy_from_slice(payload);
    let value = T::decode(Some(&payload)).map_err(|e| e.to_string())?;
    Ok(value.encode().map_err(|e| e.to_string())?.unwrap_or_default().to_vec())
}

fn add<M: Method>(rows: &mut BTreeMap<&'static str, Row>) {
    rows.insert(M::TOPIC, Row { request: recode::<M::Request>, response: recode::<M::Response> });
}

macro_rules! rows {
    ($($service:ident: $($method:ident)*;)*) => {{
        let mut rows = BTreeMap::new();
        $($(add::<rpc::$service::$method>(&mut rows);)*)*
        rows
    }};
}

fn rows() -> BTreeMap<&'static str, Row> {
    rows! {
        attr: Get List Set;
        event: Publish Subscribe;
        service: Add Remove;
        log: Append Dmesg Cancel Stats;
        module: Load Remove List Debug Trace;
        config: Get Load;
        shutdown: Start;
        overlay: Health Topology Monitor Trace Stats DisconnectSubtree;
        content: Load Store CheckpointGet Stats;
        content_backing: Load Store CheckpointGet;
        kvs: Lookup Commit Getroot WaitVersion NamespaceCreate NamespaceRemove NamespaceList;
        kvs_watch: Lookup Cancel Stats;
        rexec: Exec Write Kill Wait List;
        cron: Create Delete List Start Stop Sync;
        resource: Status;
    }
}

/// `part` is in `whole`: objects may have more keys there, numbers may be written differently.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(key, value)| {
            whole.get(key).map_or(value.is_null(), |whole| contains(whole, value))
        }),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| contains(w, p))
        }
        (Value::Number(whole), Value::Number(part)) => whole.as_f64() == part.as_f64(),
        (whole, part) => whole == part,
    }
}

#[test]
fn captured_payloads_survive_the_types_of_their_rows() {
    let rows = rows();
    let mut checked = BTreeMap::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    for name in [
        "attr",
        "event",
        "service",
        "dmesg-log",
        "module",
        "config",
        "shutdown",
        "overlay",
        "content",
        "kvs",
        "kvs-watch",
        "exec",
        "cron",
        "hostlist",
    ] {
        let text = std::fs::read_to_string(dir.join(format!("{name}.jsonl"))).unwrap();
        // Programs without the C library send deliberate nonsense in some of the files.
        let mut well_meant = true;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(run) = line.get("run").and_then(Value::as_str) {
                well_meant = run.contains("flux ");
            }
            let kind = line.get("type").and_then(Value::as_str).unwrap_or_default();
            let topic = line.get("topic").and_then(Value::as_str).unwrap_or_default();
            let encoding = line.get("payload_enc").and_then(Value::as_str);
            let failed = line.get("errnum").and_then(Value::as_u64).unwrap_or(0) != 0;
            let (Some(row), Some("json"), false) = (rows.get(topic), encoding, failed) else {
                continue;
            };
            if !well_meant || line.to_string().contains("$TRIMMED") {
                continue;
            }
            let check = match kind {
                "request" => row.request,
                "response" => row.response,
                _ => continue,
            };
            let payload = line.get("payload").unwrap();
            let encoded = match check(format!("{payload}\0").as_bytes()) {
                Ok(encoded) => encoded,
                Err(e) => panic!("{name}: {kind} {topic}: {e}: {payload}"),
            };
            // A type may say that the payload does not matter.
            let Some(encoded) = encoded.strip_suffix(b"\0") else { continue };
            let encoded: Value = serde_json::from_slice(encoded).unwrap();
            assert!(contains(&encoded, payload), "{name}: {kind} {topic}: {payload} {encoded}");
            *checked.entry(topic.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(checked.len() > 25, "{checked:?}");
}
