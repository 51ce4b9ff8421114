//! Every row of tests/vectors/tables/jobspec.json, captured from a real Flux, and the jobspecs of
//! real jobs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::fsd;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::jobspec::{Counts, Extras, Jobspec, PerResource, Rules, TaskRequest};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Texts of Python itself rather than of Flux, with what we say instead. The last is no error in
/// the capture: there the validator returns it as a message, which its caller does not look at.
const OUR_WORDS: [(&str, &str); 6] = [
    ("argument of type 'NoneType' is not iterable", "attributes.system must be a mapping"),
    ("'list' object has no attribute 'keys'", "jobspec must be a mapping"),
    ("'int' object has no attribute 'keys'", "jobspec must be a mapping"),
    ("Expecting value: line 1 column 1 (char 0)", "EOF while parsing a value at line 1 column 0"),
    (
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "EOF while parsing an object at line 1 column 1",
    ),
    ("null is valid", "Unable to parse JSON"),
];

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("jobspec.json", |row| match row.op() {
        "validate_jobspec" => {
            let json = match row.get("in_text") {
                Some(text) => text.as_str().unwrap().to_owned(),
                None => row.input().to_string(),
            };
            let ours = Jobspec::decode(&json).map(|_| json!("valid")).map_err(|e| e.to_string());
            if json == "null" {
                let ours = ours.unwrap_err();
                return table::same("errmsg", ours.as_str(), in_our_words("null is valid"));
            }
            compare(row, ours)
        }
        "JobspecV1.from_command" => compare(row, build(row, from_command)),
        "JobspecV1.from_nest_command" => compare(row, build(row, from_nest_command)),
        "JobspecV1.per_resource" => compare(row, build(row, per_resource)),
        op => Err(format!("unknown op {op}")),
    });
}

fn compare(row: &table::Row, ours: Result<Value, String>) -> Result<(), String> {
    match (ours, row.out()) {
        (Ok(ours), Some(real)) => table::same("out", &ours, real),
        (Err(ours), None) => table::same("errmsg", ours.as_str(), in_our_words(row.errmsg())),
        (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
    }
}

fn in_our_words(real: &str) -> &str {
    OUR_WORDS.iter().find(|(theirs, _)| *theirs == real).map_or(real, |(_, ours)| ours)
}

/// Arguments of the captured Python call, consumed one by one.
struct Arguments(Map<String, Value>);

type Built = Result<Jobspec, String>;

fn build(row: &table::Row, make: fn(&mut Arguments) -> Built) -> Result<Value, String> {
    let mut arguments = Arguments(row.input().as_object().unwrap().clone());
    // In Python this is found by the validator: let ours see the same document.
    if let Some(command @ Value::String(_)) = arguments.0.get("command") {
        let mut document = Jobspec::from_command(&TaskRequest::new(["x"]), &Extras::default())
            .unwrap()
            .into_document();
        document["tasks"][0]["command"] = command.clone();
        return Jobspec::decode(&document.to_string())
            .map(|jobspec| json!(jobspec))
            .map_err(|e| e.to_string());
    }
    let jobspec = make(&mut arguments);
    match arguments.0.keys().next() {
        // What has no place in our types is no argument in Python either.
        Some(unknown) => {
            Err(format!("JobspecV1.from_command() got an unexpected keyword argument '{unknown}'"))
        }
        None => jobspec.map(|jobspec| json!(jobspec)),
    }
}

impl Arguments {
    #[allow(clippy::disallowed_methods, reason = "nobody reads what is left")]
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// An integer; what is none is refused in the words for a number out of range.
    fn integer(&mut self, key: &str) -> Option<i64> {
        self.take(key).map(|value| value.as_i64().unwrap_or(0))
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.take(key).map(|value| value.as_str().unwrap().to_owned())
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key).is_some_and(|value| value.as_bool().unwrap())
    }

    fn command(&mut self) -> Vec<String> {
        serde_json::from_value(self.take("command").unwrap()).unwrap()
    }

    fn extras(&mut self) -> Result<Extras, String> {
        let duration = match self.take("duration") {
            Some(Value::String(text)) => Some(fsd::python_parse(&text).map_err(|e| e.to_string())?),
            other => other.map(|value| value.as_f64().unwrap()),
        };
        let environment = self.take("environment").unwrap_or(json!({"<caller>": "environment"}));
        Ok(Extras {
            duration,
            environment: environment.as_object().unwrap().clone(),
            cwd: self.text("cwd"),
            name: self.text("name"),
            input: self.text("input"),
            output: self.text("output"),
            error: self.text("error"),
            queue: self.text("queue"),
            ..Extras::default()
        })
    }
}

fn from_command(arguments: &mut Arguments) -> Built {
    let request = TaskRequest {
        command: arguments.command(),
        num_tasks: arguments.integer("num_tasks").unwrap_or(1),
        cores_per_task: arguments.integer("cores_per_task").unwrap_or(1),
        gpus_per_task: arguments.integer("gpus_per_task"),
        num_nodes: arguments.integer("num_nodes"),
        exclusive: arguments.flag("exclusive"),
    };
    Jobspec::from_command(&request, &arguments.extras()?).map_err(|e| e.to_string())
}

fn from_nest_command(arguments: &mut Arguments) -> Built {
    let request = TaskRequest {
        num_tasks: arguments.integer("num_slots").unwrap_or(1),
        num_nodes: arguments.integer("num_nodes"),
        ..TaskRequest::new(arguments.command())
    };
    Jobspec::from_nest_command(&request, &[], &arguments.extras()?).map_err(|e| e.to_string())
}

fn per_resource(arguments: &mut Arguments) -> Built {
    let kind = arguments.text("per_resource_type");
    let request = PerResource {
        command: arguments.command(),
        ncores: arguments.integer("ncores"),
        nnodes: arguments.integer("nnodes"),
        per_resource: kind.map(|kind| (kind, arguments.integer("per_resource_count").unwrap())),
        gpus_per_node: arguments.integer("gpus_per_node"),
        exclusive: arguments.flag("exclusive"),
    };
    Jobspec::per_resource(&request, &arguments.extras()?).map_err(|e| e.to_string())
}

fn with_system(key: &str, value: Value) -> Value {
    let mut jobspec =
        Jobspec::from_command(&TaskRequest::new(["true"]), &Extras::default()).unwrap();
    jobspec.set_attribute(key, value);
    jobspec.into_document()
}

fn with_resource(resource: Value) -> Value {
    let mut document = with_system("cwd", json!("/"));
    document["resources"] = json!([resource]);
    document
}

fn error(document: &Value) -> String {
    Jobspec::from_value(document.clone(), &Rules::default()).unwrap_err().to_string()
}

#[test]
fn jobspecs_of_real_jobs_are_valid_and_survive() {
    for (name, job) in table::jobs() {
        let Some(real) = job["kvs"].get("jobspec") else { panic!("{name} has no jobspec") };
        let jobspec = Jobspec::decode(&real.to_string()).unwrap();
        assert_eq!(&json!(jobspec), real, "{name}");
        let again = Jobspec::decode(&jobspec.encode().unwrap()).unwrap();
        assert_eq!(again, jobspec, "{name}");
        let mut jobspec = jobspec;
        for event in job["kvs"]["eventlog"].as_array().unwrap() {
            if event["name"] == "jobspec-update" {
                for (key, value) in event["context"].as_object().unwrap() {
                    jobspec.set_attribute(key, value.clone());
                }
            }
        }
        let shown = &job["jobs_json"];
        assert_eq!(shown["duration"], json!(jobspec.duration()), "{name}");
        let per_resource = jobspec.shell_option("per-resource").is_some();
        if !per_resource {
            assert_eq!(shown["ntasks"], json!(jobspec.ntasks().unwrap()), "{name}");
        }
        let words = jobspec.command();
        let file = words[0].rsplit('/').next().unwrap();
        assert_eq!(shown["name"], json!(jobspec.job_name().unwrap_or(file)), "{name}");
    }
}

#[test]
fn counts_multiply_down_the_tree() {
    let counts = |resource: Value| {
        Jobspec::from_value(with_resource(resource), &Rules::default()).unwrap().counts()
    };
    let slot = |count: u32, with: Value| json!({"type": "slot", "count": count, "label": "task", "with": with});
    let cores = json!([{"type": "core", "count": 4}, {"type": "gpu", "count": 1}]);
    let expected = Counts { nnodes: 0, nslots: 2, slot_cores: 4, slot_gpus: 1, exclusive: false };
    assert_eq!(counts(slot(2, cores.clone())).unwrap(), expected);
    assert_eq!((expected.ncores(), expected.ngpus()), (8, 2));

    let nodes = json!({"type": "node", "count": 3, "exclusive": true, "with": [slot(2, cores)]});
    let expected = Counts { nnodes: 3, nslots: 6, exclusive: true, ..expected };
    assert_eq!(counts(nodes.clone()).unwrap(), expected);
    let racks = json!({"type": "rack", "count": 2, "with": [nodes]});
    assert_eq!(counts(racks).unwrap(), Counts { nnodes: 6, nslots: 12, ..expected });

    let text = |resource| counts(resource).unwrap_err().to_string();
    assert_eq!(text(json!({"type": "node", "count": 1})), "Unable to determine slot count");
    assert_eq!(text(slot(1, json!([]))), "Unable to determine slot size");
    let gpu = json!([{"type": "core", "count": 1}, {"type": "gpu", "count": 0}]);
    assert_eq!(text(slot(1, gpu)), "Invalid count 0 for type 'gpu'");
    let huge = json!([{"type": "core", "count": 1}]);
    let huge = slot(u32::MAX, json!([slot(u32::MAX, json!([slot(u32::MAX, huge)]))]));
    assert_eq!(text(huge), "resource counts are too large");
}

#[test]
fn attributes_are_reached_by_dotted_keys() {
    let mut jobspec =
        Jobspec::from_value(with_system("shell.options.a.b", json!(1)), &Rules::default()).unwrap();
    assert_eq!(jobspec.shell_option("a.b"), Some(&json!(1)));
    assert_eq!(jobspec.attribute("attributes.system.shell.options.a.b"), Some(&json!(1)));
    jobspec.set_attribute("user.x", json!([2]));
    assert_eq!(jobspec.document()["attributes"]["user"], json!({"x": [2]}));
    jobspec.set_attribute("queue", json!("batch"));
    jobspec.set_attribute("bank", json!("lab"));
    assert_eq!((jobspec.queue(), jobspec.bank()), (Some("batch"), Some("lab")));
    assert!(jobspec.environment().unwrap().is_empty());
    assert_eq!(jobspec.remove_attribute("environment"), Some(json!({})));
    assert_eq!(jobspec.environment(), None);
    assert_eq!(jobspec.remove_attribute("no.such.key"), None);
    assert!(jobspec.set_duration(f64::INFINITY).is_err());
}

#[test]
fn unknown_parts_are_carried_along() {
    let mut document = with_system("odd", json!({"x": [1, null]}));
    document["resources"][0]["note"] = json!("mine");
    let jobspec = Jobspec::decode(&document.to_string()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&jobspec.encode().unwrap()).unwrap(), document);
}

#[test]
fn ranges_of_counts_belong_to_later_versions() {
    let text = |count: Value| {
        let mut document = with_resource(
            json!({"type": "slot", "label": "task", "count": count, "with": [{"type": "core", "count": 1}]}),
        );
        document["version"] = json!(2);
        Jobspec::from_value(document, &Rules::default())
            .map_or_else(|e| e.to_string(), |_| "valid".into())
    };
    for valid in ["1", "1,3-5", "2-4", "2+", "2-8:2", "2-8:2:*", "2+:2:^"] {
        assert_eq!(text(json!(valid)), "valid", "{valid}");
    }
    for (count, words) in [
        ("x", "count string must be a valid idset or range"),
        ("2-8:2:*:1", "count string must be a valid idset or range"),
        ("a-b", "invalid literal for int() with base 10: 'b'"),
        ("8-2", "max must be >= min"),
        ("0+", "min must be > 0"),
        ("2-8:1:*", "operand must be > 1 for '*' or '^' operator"),
        ("1-8:2:^", "min must be > 1 for '^' operator"),
        ("2-8:2:++", "operator must be a single character str"),
    ] {
        assert_eq!(text(json!(count)), words, "{count}");
    }
    assert_eq!(text(json!({"max": 1})), "min must be in range");
    assert_eq!(text(json!({"min": 1, "odd": 1})), "Extraneous key (odd)");
    assert_eq!(
        text(json!({"min": 1, "operand": 1})),
        "operand and operator must both be in range if either is"
    );
    assert_eq!(text(json!({"min": 1.5})), "min must be an int");
}

#[test]
fn rules_of_the_instance_are_kept() {
    let hosts = Hostlist::decode("fluke[0-3]").unwrap();
    let check = |rules: &Rules<'_>, document: Value| {
        Jobspec::from_value(document, rules).map_or_else(|e| e.to_string(), |_| "valid".into())
    };
    let known = Rules { hosts: Some(&hosts), ..Rules::default() };
    let on = |text: &str| with_system("constraints", json!({"not": [{"hostlist": [text]}]}));
    assert_eq!(check(&known, on("fluke[1-2]")), "valid");
    assert_eq!(
        check(&known, on("fluke1,x")),
        "host constraint contains invalid hosts: host 'x' not found"
    );
    assert_eq!(check(&known, on("x[")), "Invalid hostlist: 'x['");
    assert_eq!(check(&Rules::default(), on("x")), "valid");
    // Each list is fine, but all together would be ten million names.
    let part = json!({"hostlist": ["n[0-99999]x"]});
    let many = with_system("constraints", json!({"or": vec![part; 100]}));
    assert_eq!(check(&Rules::default(), many), "Invalid hostlist: 'n[0-99999]x'");

    let one = Rules { require_version: Some(1), ..Rules::default() };
    let mut two = with_system("cwd", json!("/"));
    assert_eq!(check(&one, two.clone()), "valid");
    two["version"] = json!(2);
    assert_eq!(check(&one, two), "version must be 1");
}

#[test]
fn breaches_are_reported_in_the_words_of_flux() {
    let system = |key, value| error(&with_system(key, value));
    assert_eq!(system("dependencies", json!(["x"])), "dependency must be a mapping");
    assert_eq!(
        system("dependencies", json!([{"scheme": "a", "value": 1}])),
        "dependency value must be a string"
    );
    assert_eq!(
        system("constraints", json!({"and": 1})),
        "argument to constraint and must be a sequence"
    );
    assert_eq!(system("constraints", json!({"bogus": [1]})), "unknown constraint operator 'bogus'");
    assert_eq!(
        system("constraints", json!({"ranks": [1]})),
        "value of constraint ranks must be a string"
    );
    assert_eq!(
        system("constraints", json!({"properties": ["a|b"]})),
        "invalid character in property 'a|b'"
    );
    assert_eq!(error(&with_resource(json!(1))), "resource must be a mapping");
    assert_eq!(error(&with_resource(json!({"type": "gpu", "count": -1}))), "count must be >= 0");
    assert_eq!(
        error(&with_resource(json!({"type": "gpu", "count": 0, "with": {}}))),
        "with must be a sequence"
    );
}

#[test]
fn streams_and_buffering_become_shell_options() {
    let extras = Extras {
        output: Some("out".into()),
        error: Some("none".into()),
        label_io: true,
        unbuffered: true,
        ..Extras::default()
    };
    let jobspec = Jobspec::from_command(&TaskRequest::new(["true"]), &extras).unwrap();
    assert_eq!(
        jobspec.attribute("shell.options").unwrap(),
        &json!({
            "output": {
                "stdout": {"type": "file", "path": "out", "label": true, "buffer": {"type": "none"}},
                "stderr": {"buffer": {"type": "none"}},
                "batch-timeout": 0.05,
            },
            "input": {"batch-timeout": 0.0},
        })
    );
}

proptest! {
    #[test]
    fn what_is_built_is_valid_and_asks_for_what_was_wanted(
        num_tasks in 1..20i64, cores in 1..5i64, gpus in prop::option::of(0..3i64),
        nodes in prop::option::of(1..20i64), exclusive: bool,
    ) {
        let request = TaskRequest {
            num_tasks, cores_per_task: cores, gpus_per_task: gpus, num_nodes: nodes,
            exclusive: exclusive && nodes.is_some(), ..TaskRequest::new(["a", "b"])
        };
        let Ok(jobspec) = Jobspec::from_command(&request, &Extras::default()) else {
            prop_assert!(nodes.unwrap() > num_tasks);
            return Ok(());
        };
        let counts = jobspec.counts().unwrap();
        prop_assert_eq!(jobspec.ntasks().unwrap(), num_tasks as u64);
        prop_assert!(counts.nslots >= num_tasks as u64);
        prop_assert_eq!(counts.slot_cores, cores as u64);
        prop_assert_eq!(counts.slot_gpus, gpus.unwrap_or(0) as u64);
        prop_assert_eq!(counts.nnodes, nodes.unwrap_or(0) as u64);
        prop_assert_eq!(jobspec.command(), ["a", "b"]);
        let again = Jobspec::decode(&jobspec.encode().unwrap()).unwrap();
        prop_assert_eq!(again, jobspec);
    }

    #[test]
    fn decoding_never_panics(text in "\\PC*", cut in 0..400usize, count in "[0-9+:*^,-]{0,12}") {
        let _ = Jobspec::decode(&text);
        let mut document = with_system("dependencies", json!([]));
        document["version"] = json!(2);
        document["resources"][0]["count"] = json!(count);
        let json = document.to_string();
        let _ = Jobspec::decode(&json);
        let _ = Jobspec::decode(&json[..cut.min(json.len())]);
    }
}
