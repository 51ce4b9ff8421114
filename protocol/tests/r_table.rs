//! Every row of tests/vectors/tables/R.json, captured from a real Flux, and the R of real jobs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::constraint::Constraint;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{MAX_NODES, RError, ResourceSet, Resources};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("R.json", |row| match row.op() {
        "decode" => decode(row, &row.input().to_string()),
        "decode-text" => decode(row, row.input().as_str().unwrap()),
        "union" => pair(row, |a, b| a.union(&set(b))),
        "diff" => pair(row, |a, b| a.diff(&set(b))),
        "intersect" => pair(row, |a, b| a.python_intersect(&set(b))),
        "copy_ranks" => pair(row, |a, ranks| a.copy_ranks(&ids(ranks.as_str().unwrap()))),
        "remove_ranks" => pair(row, |mut a, ranks| {
            a.remove_ranks(&ids(ranks.as_str().unwrap()));
            a
        }),
        "copy_constraint" => constrain(row),
        "flux R encode" => flux_r_encode(row),
        op => Err(format!("unknown op {op}")),
    });
}

/// The captures come from Python, whose errors name Python's types: ours are compared where they
/// are about R itself.
fn decode(row: &table::Row, json: &str) -> Result<(), String> {
    match (ResourceSet::decode(json), row.out()) {
        (Ok(set), Some(Value::String(dumps))) => table::same("dumps", &set.dumps(), dumps),
        (Ok(set), Some(out)) => describe(set, out),
        (Err(e @ RError::Version(_)), None) => {
            table::same("errmsg", e.to_string().as_str(), row.errmsg())
        }
        (Err(RError::MissingVersion), None) => table::same("errmsg", "'version'", row.errmsg()),
        (Err(RError::Json(_)), None) if !row.errmsg().contains("version") => Ok(()),
        (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
    }
}

fn describe(mut set: ResourceSet, out: &Value) -> Result<(), String> {
    // The capture did not ask the bindings to keep this.
    set.scheduling = None;
    for (key, real) in out.as_object().unwrap() {
        let ours = match key.as_str() {
            "encode" => json!(set),
            "dumps" => json!(set.dumps()),
            "nnodes" => json!(set.nnodes()),
            "ncores" => json!(set.ncores()),
            "ngpus" => json!(set.ngpus()),
            "ranks" => json!(set.ranks()),
            "nodelist" => json!(set.nodelist()),
            other => return Err(format!("unknown key {other}")),
        };
        table::same(key, &ours, real)?;
    }
    Ok(())
}

fn pair(row: &table::Row, op: fn(ResourceSet, &Value) -> ResourceSet) -> Result<(), String> {
    let [a, b] = row.input().as_array().unwrap().as_slice() else { panic!("two inputs") };
    table::same("out", &json!(op(set(a), b)), row.out().unwrap())
}

fn constrain(row: &table::Row) -> Result<(), String> {
    let [resources, constraint] = row.input().as_array().unwrap().as_slice() else { panic!() };
    match (Constraint::python_decode(constraint), row.out()) {
        (Ok(constraint), Some(real)) => {
            table::same("out", &json!(set(resources).copy_constraint(&constraint)), real)
        }
        (Err(e), None) if row.errmsg().starts_with("IDset()") => {
            table::same("errmsg", e.to_string().as_str(), "invalid idset 'x' in [\"x\"]")
        }
        (Err(e), None) => table::same("errmsg", e.to_string().as_str(), row.errmsg()),
        (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
    }
}

/// What the command does with its options; the words around an error are its own.
fn flux_r_encode(row: &table::Row) -> Result<(), String> {
    let words: Vec<&str> = row.input().as_str().unwrap().split(' ').collect();
    let option = |name: &str| words.iter().position(|w| *w == name).map(|at| words[at + 1]);
    let idset = |name: &str| Idset::decode(option(name).unwrap_or(""));
    let built = (|| {
        let (ranks, cores, gpus) = match (idset("-r"), idset("-c"), idset("-g")) {
            (Ok(ranks), Ok(cores), Ok(gpus)) => (ranks, cores, gpus),
            _ => return Err(None),
        };
        let hosts = match option("-H") {
            Some(hosts) => Hostlist::decode(hosts).unwrap(),
            None => ranks.iter().map(|_| "vm").collect(),
        };
        let mut set =
            ResourceSet::uniform(&ranks, Resources { cores, gpus }, &hosts).map_err(Some)?;
        if let Some((name, targets)) = option("-p").and_then(|p| p.split_once(':')) {
            set.set_property(name, &ids(targets)).map_err(Some)?;
        }
        Ok(set)
    })();
    match (built, row.out()) {
        (Ok(set), Some(real)) => table::same("out", &json!(set), real),
        (Err(Some(e @ RError::PropertyName { .. })), None) => {
            let real = row.errmsg().strip_prefix("flux-R: failed to assign properties: ").unwrap();
            table::same("errmsg", e.to_string().as_str(), real.trim_end())
        }
        (Err(Some(RError::HostCount { hosts: 1, nodes: 2 }) | None), None) => Ok(()),
        (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
    }
}

fn set(json: &Value) -> ResourceSet {
    ResourceSet::decode(&json.to_string()).unwrap()
}

fn ids(text: &str) -> Idset {
    Idset::decode(text).unwrap()
}

fn uniform(ranks: &str, cores: &str, gpus: &str, hosts: &str) -> ResourceSet {
    let resources = Resources { cores: ids(cores), gpus: ids(gpus) };
    ResourceSet::uniform(&ids(ranks), resources, &Hostlist::decode(hosts).unwrap()).unwrap()
}

#[test]
fn the_r_of_real_jobs_survives_and_names_what_the_scheduler_annotated() {
    let mut seen = 0;
    for (name, job) in table::jobs() {
        let Some(r) = job["kvs"].get("R") else { continue };
        let set = set(r);
        assert_eq!(&json!(set), r, "{name}");
        let events = job["kvs"]["eventlog"].as_array().unwrap();
        let alloc = events.iter().find(|event| event["name"] == "alloc").unwrap();
        let summary = &alloc["context"]["annotations"]["sched"]["resource_summary"];
        assert_eq!(summary, &set.dumps(), "{name}");
        seen += 1;
    }
    assert!(seen > 20, "only {seen} jobs with R");
}

#[test]
fn intersection_is_by_core_and_gpu() {
    let all = uniform("0-3", "0-7", "0-1", "fluke[0-3]");
    let some = uniform("2-5", "6-9", "", "fluke[2-5]");
    assert_eq!(all.intersect(&some).dumps(), "rank[2-3]/core[6-7]");
    assert_eq!(all.python_intersect(&some).dumps(), "rank[2-3]/core[0-7],gpu[0-1]");
    assert!(all.contains(&all.intersect(&some)) && !all.contains(&some));
    assert!(all.diff(&all).is_empty());
}

#[test]
fn a_nested_instance_counts_nodes_and_cores_from_zero() {
    let mut set = uniform("3,7", "4-5", "2-3", "b,a");
    set.set_property("big", &ids("7")).unwrap();
    set.remap();
    assert_eq!(set.dumps(), "rank[0-1]/core[0-1],gpu[2-3]");
    assert_eq!(set.nodelist().encode(), "b,a");
    assert_eq!(json!(set)["execution"]["properties"], json!({"big": "1"}));

    set.rerank(&Hostlist::decode("a,b").unwrap()).unwrap();
    assert_eq!(set.nodelist().encode(), "a,b");
    assert_eq!(json!(set)["execution"]["properties"], json!({"big": "0"}));

    let error = |hosts| uniform("0-1", "0", "", "a,b").rerank(&Hostlist::decode(hosts).unwrap());
    let text = |hosts| error(hosts).unwrap_err().to_string();
    assert_eq!(text("a"), "Number of hosts (1) is less than node count (2)");
    assert_eq!(text("a,b,c"), "Number of hosts (3) is greater than node count (2)");
    assert_eq!(text("a,c"), "Host c not found in resources");
    assert_eq!(text("a,a"), "Host a not found in resources");
}

#[test]
fn brokers_that_share_a_host_are_reranked_in_order() {
    let mut set = uniform("0-2", "0", "", "vm,other,vm");
    set.set_property("last", &ids("2")).unwrap();
    set.rerank(&Hostlist::decode("vm,vm,other").unwrap()).unwrap();
    assert_eq!(set.properties()["last"].encode(), "1");
    assert_eq!(set.host_ranks(&Hostlist::decode("vm").unwrap()).unwrap().encode(), "0-1");
    let unknown = set.host_ranks(&Hostlist::decode("x1,vm,x2").unwrap()).unwrap_err();
    assert_eq!(unknown.to_string(), "invalid hosts: x[1-2]");
}

#[test]
fn properties_belong_to_nodes_of_the_set() {
    let mut set = uniform("0-1", "0", "", "a,b");
    let text = |result: Result<(), RError>| result.unwrap_err().to_string();
    assert_eq!(
        text(set.set_property("x", &ids("1-2"))),
        "rank 2 not found in target resource list"
    );
    assert_eq!(
        text(set.set_property("x", &ids("5-6"))),
        "ranks 5-6 not found in target resource list"
    );
    set.set_property("+queue", &ids("0")).unwrap();
    set.remove_instance_local_properties();
    assert!(set.properties().is_empty());
}

#[test]
fn scheduler_data_is_kept_as_it_came() {
    let text = r#"{"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0"}}]},"scheduling":{"b":1, "a":[2]}}"#;
    let set = ResourceSet::decode(text).unwrap();
    assert!(set.encode().unwrap().ends_with(r#""scheduling":{"b":1, "a":[2]}}"#));
}

#[test]
fn names_that_no_host_can_have_are_refused() {
    let r = json!({"version": 1, "execution": {
        "R_lite": [{"rank": "0-1", "children": {"core": "0"}}],
        "nodelist": ["r[0-1]n[0-1]"],
    }});
    let error = ResourceSet::decode(&r.to_string()).unwrap_err();
    assert_eq!(error.to_string(), "invalid host name: 'r0n[0-1]'");
    let mut set = uniform("0", "0", "", "a");
    assert!(set.assign_hosts(&Hostlist::decode("r[0]n[0]").unwrap()).is_err());
    set.assign_hosts(&Hostlist::decode("b").unwrap()).unwrap();
    assert_eq!(set.nodelist().encode(), "b");
}

#[test]
fn constraints_follow_rfc_31() {
    let mut set = uniform("0-3", "0", "", "fluke[0-3]");
    set.set_property("ssd", &ids("1-2")).unwrap();
    let matching = |json: Value| Constraint::decode(&json).unwrap().matching(&set).encode();
    assert_eq!(matching(json!({})), "0-3");
    assert_eq!(matching(json!({"or": []})), "0-3");
    assert_eq!(matching(json!({"and": []})), "0-3");
    assert_eq!(matching(json!({"not": []})), "");
    assert_eq!(matching(json!({"properties": ["ssd", "^fluke2"]})), "1");
    assert_eq!(matching(json!({"properties": ["none"]})), "");
    assert_eq!(matching(json!({"not": [{"properties": ["ssd"]}, {"ranks": ["2-3"]}]})), "0-1,3");
    assert_eq!(matching(json!({"hostlist": ["fluke[3,0]", "nope"]})), "0,3");
    let error = |json: Value| Constraint::decode(&json).unwrap_err().to_string();
    assert_eq!(error(json!([])), "constraint must be JSON object");
    assert_eq!(error(json!({"a": 1, "b": 2})), "constraint must only contain 1 element");
    assert_eq!(error(json!({"bogus": []})), "unknown constraint operator: bogus");
    assert_eq!(error(json!({"and": 1})), "and operator value must be an array");
    assert_eq!(error(json!({"properties": {}})), "properties value must be an array");
    assert_eq!(error(json!({"properties": [1]})), "non-string property specified");
    assert_eq!(error(json!({"properties": ["a|b"]})), "invalid character '|' in property \"a|b\"");
    assert_eq!(error(json!({"hostlist": ["a["]})), "invalid hostlist 'a[' in [\"a[\"]");
    assert_eq!(error(json!({"not": [{"ranks": ["1-"]}]})), "invalid idset '1-' in [\"1-\"]");
}

#[test]
fn a_set_that_would_fill_memory_is_refused() {
    let r = |ranks: &str| {
        json!({"version": 1, "execution": {"R_lite": [{"rank": ranks, "children": {"core": "0-63"}}]}})
            .to_string()
    };
    let error = ResourceSet::decode(&r("0-2147483647")).unwrap_err();
    assert_eq!(error.to_string(), format!("R has 2147483648 nodes, more than {MAX_NODES}"));
    let large = ResourceSet::decode(&r("0-9999")).unwrap();
    assert_eq!((large.nnodes(), large.ncores()), (10_000, 640_000));
    assert_eq!(large.diff(&large.copy_ranks(&ids("1-9998"))).dumps(), "rank[0,9999]/core[0-63]");
}

fn resource_set() -> impl Strategy<Value = ResourceSet> {
    let small = |max: u32| prop::collection::vec(0..max, 0..5).prop_map(Idset::from_iter);
    let node = (0..6u32, small(6), small(3));
    (prop::collection::vec(node, 0..8), small(6), any::<bool>()).prop_map(|(nodes, big, named)| {
        let entries: Vec<Value> = nodes
            .iter()
            .map(|(rank, core, gpu)| json!({"rank": rank, "children": {"core": core, "gpu": gpu}}))
            .collect();
        let nodelist = if named { json!(["n[0-9]"]) } else { json!([]) };
        let execution =
            json!({"R_lite": entries, "nodelist": nodelist, "properties": {"big": big}});
        set(&json!({"version": 1, "execution": execution}))
    })
}

/// All cores and GPUs as a set of triples.
fn members(set: &ResourceSet) -> std::collections::BTreeSet<(u32, bool, u32)> {
    set.nodes()
        .flat_map(|(rank, node)| {
            let cores = node.resources.cores.iter().map(move |id| (rank, false, id));
            let gpus = node.resources.gpus.iter().map(move |id| (rank, true, id));
            cores.chain(gpus).collect::<Vec<_>>()
        })
        .collect()
}

proptest! {
    #[test]
    fn any_set_survives_encoding(original in resource_set()) {
        let text = original.encode().unwrap();
        let again = ResourceSet::decode(&text).unwrap();
        prop_assert_eq!(again.encode().unwrap(), text);
        prop_assert_eq!(members(&again), members(&original));
        prop_assert_eq!(again.nodelist().encode(), original.nodelist().encode());
    }

    #[test]
    fn algebra_agrees_with_sets_of_cores_and_gpus(a in resource_set(), b in resource_set()) {
        let (x, y) = (members(&a), members(&b));
        prop_assert_eq!(members(&a.union(&b)), &x | &y);
        prop_assert_eq!(members(&a.intersect(&b)), &x & &y);
        prop_assert_eq!(members(&a.diff(&b)), &x - &y);
        prop_assert_eq!(a.contains(&b), y.is_subset(&x) && b.ranks().is_subset(&a.ranks()));
        prop_assert_eq!(a.ncores() + a.ngpus(), x.len() as u64);
    }

    #[test]
    fn decoding_never_panics(text in "\\PC*", a in resource_set(), cut in 0..300usize) {
        let _ = ResourceSet::decode(&text);
        let json = a.encode().unwrap();
        let _ = ResourceSet::decode(&json[..cut.min(json.len())]);
    }
}
