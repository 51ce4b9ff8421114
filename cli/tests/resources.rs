//! Where the resources of an instance come from, and what is verified of them: instances of one
//! broker, configured by files. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Site {
    dir: tempfile::TempDir,
    hardware: Option<PathBuf>,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap(), hardware: None };
        std::fs::create_dir(site.path("conf")).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn flux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "120", env!("CARGO_BIN_EXE_flux")]).args(args);
        command.env_remove("FLUX_URI").env("FLUX_FAKE_HOSTNAME", "node7").current_dir(&self.dir);
        command.env_remove("FLUX_CONF_DIR").stdin(std::process::Stdio::null());
        if let Some(file) = &self.hardware {
            command.env("HWLOC_XMLFILE", file);
        }
        command.output().unwrap()
    }

    /// An R file of this host with these options of `flux R encode`.
    fn r(&self, options: &[&str]) -> PathBuf {
        let output = self.flux(&[&["R", "encode"], options].concat());
        assert!(output.status.success(), "{output:?}");
        let path = self.path("R");
        std::fs::write(&path, output.stdout).unwrap();
        path
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.path("conf/system.toml"), text).unwrap();
    }

    /// An instance that runs a line of shell; all that is printed, words apart by one blank.
    fn run(&self, line: &str) -> String {
        self.run_on(&[], line)
    }

    fn run_on(&self, options: &[&str], line: &str) -> String {
        let start = ["start", "-o,--config-path=conf"];
        let output = self.flux(&[&start, options, &[line]].concat());
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect::<Vec<_>>().join("\n")
    }
}

fn resource(r: &Path, rest: &str) -> String {
    format!("[resource]\npath = \"{}\"\n{rest}\n", r.display())
}

const DRAINED: &str = "flux resource drain -no '{state}: {reason}'";

#[test]
fn node_that_lacks_what_it_should_have_is_drained_with_the_reason() {
    let site = Site::new();
    let r = site.r(&["--hosts=node7", "--cores=0-9999"]);
    site.configure(&resource(&r, ""));
    let said = site.run(&format!("{DRAINED}; flux dmesg; flux resource list -no {{ncores}}"));
    let reason = "rank 0 (node7) missing resources: core[";
    assert!(said.starts_with(&format!("drained: {reason}")), "{said}");
    assert!(said.contains(&format!("resource.err[0]: draining: {reason}")), "{said}");
    for pardon in ["noverify = true", "verify = false", "verify.core = \"allow-missing\""] {
        site.configure(&resource(&r, pardon));
        let said = site.run(&format!("{DRAINED}; flux resource list -s free -no {{ncores}}"));
        assert_eq!(said, "10000", "{pardon}");
    }
    let r = site.r(&["--hosts=wronghost", "--cores=0"]);
    site.configure(&resource(&r, ""));
    let said = site.run(DRAINED);
    let reason = "drained: rank 0 got hostname 'node7', expected 'wronghost'";
    assert!(said.starts_with(reason), "{said}");
    site.configure(&resource(&r, "verify.core = \"strct\""));
    let said = site.run("echo started");
    assert!(!said.contains("started") && said.contains("unknown verify mode 'strct'"), "{said}");
    site.configure(&resource(Path::new("/nonexistent/R"), ""));
    let said = site.run("echo started");
    assert!(!said.contains("started") && said.contains("/nonexistent/R"), "{said}");
}

#[test]
fn a_node_that_is_not_excluded_any_more_runs_the_jobs_that_wait() {
    let other = "printf '[sched]\\nplugin = \"sched-backfill.wasm\"\\n' >> conf/system.toml
         flux config reload; until flux dmesg | grep -q 'has taken over'; do sleep 0.05; done";
    // Whichever scheduler it is that knew of the exclusion; the last one is replaced by the
    // reload that ends the exclusion.
    for scheduler in ["", "flux module reload sched-simple", other] {
        exclusion_ends(scheduler);
    }
}

fn exclusion_ends(scheduler: &str) {
    let site = Site::new();
    let r = site.r(&["--hosts=node[7-9]", "--cores=0", "--property=edge:0-1"]);
    let conf = |rest: &str| resource(&r, &format!("noverify = true\n{rest}"));
    site.configure(&conf("exclude = \"node[7-8]\""));
    std::fs::write(site.path("more.toml"), conf("exclude = \"node8\"")).unwrap();
    let said = site.run_on(
        &["-s3", "--test-hosts=node[7-9]"],
        &format!("{scheduler}
         runs=$(flux submit sleep inf); flux job wait-event $runs start >/dev/null
         waits=$(flux submit hostname); flux resource drain 2; flux resource undrain 2
         mv more.toml conf/system.toml; flux config reload
         flux job wait-event -t 60 $waits clean >/dev/null; flux jobs -no {{nodelist}} $runs $waits
         flux resource status -s exclude,avail -no '{{state}} {{nodelist}}'
         flux resource list -s free,allocated -no '{{state}} {{nodelist}} {{properties}}'
         flux run -N1 --requires=edge flux getattr rank; flux cancel $runs; flux run -N2 true
         flux queue idle >/dev/null; flux jobs -a -no '{{id.dec}} {{result}} {{nnodes}}' | sort -n | cut -f2- -d' '"),
    );
    assert_eq!(
        said,
        "node9\nnode7\navail node[7,9]\nexclude node8\nfree node7 edge\nallocated node9\n\
         0\nCANCELED 1\nCOMPLETED 1\nCOMPLETED 1\nCOMPLETED 2"
    );
}

#[test]
fn gpus_are_found_and_verified_where_that_is_asked_for() {
    let mut site = Site::new();
    let device = |n| {
        format!(
            "<object type=\"OSDev\" gp_index=\"{}\" name=\"cuda{n}\" subtype=\"CUDA\" \
             osdev_type=\"5\"><info name=\"Backend\" value=\"CUDA\"/></object>",
            10 + n
        )
    };
    let set = "cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x1\" complete_nodeset=\"0x1\"";
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n\
         <topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\" {set} \
         allowed_cpuset=\"0x1\" allowed_nodeset=\"0x1\" gp_index=\"1\">\
         <object type=\"NUMANode\" os_index=\"0\" {set} gp_index=\"2\" local_memory=\"1024\"/>\
         <object type=\"Core\" os_index=\"0\" {set} gp_index=\"3\">\
         <object type=\"PU\" os_index=\"0\" {set} gp_index=\"4\"/></object>{}{}</object>\
         </topology>\n",
        device(0),
        device(1)
    );
    let file = site.path("hardware.xml");
    std::fs::write(&file, xml).unwrap();
    site.hardware = Some(file);
    site.configure("");
    let said = site.run("flux resource info");
    if said == "1 Nodes, 1 Cores, 0 GPUs" || !said.starts_with("1 Nodes, 1 Cores") {
        eprintln!("hwloc is not installed: skipped ({said})");
        return;
    }
    assert_eq!(said, "1 Nodes, 1 Cores, 2 GPUs");
    let local = site.flux(&["R", "encode", "--local"]).stdout;
    assert!(String::from_utf8_lossy(&local).contains("\"gpu\": \"0-1\""), "{local:?}");
    for (gpus, verify, drained) in [
        ("--gpus=0-1", "verify = true", ""),
        ("--gpus=0-3", "", ""),
        ("--gpus=0-3", "verify.gpu = \"strict\"", "missing resources: gpu[2-3]"),
    ] {
        let r = site.r(&["--hosts=node7", "--cores=0", gpus]);
        site.configure(&resource(&r, verify));
        let said = site.run(DRAINED);
        assert_eq!(said.is_empty(), drained.is_empty(), "{gpus} {verify}: {said}");
        assert!(said.contains(drained), "{said}");
    }
}

#[test]
fn what_only_schedulers_understand_goes_to_the_job_and_to_its_instance() {
    let site = Site::new();
    let r = site.r(&["--hosts=node7", "--cores=0"]);
    std::fs::write(site.path("jgf"), "{\"x\": 1}").unwrap();
    let scheduling = format!("noverify = true\nscheduling = \"{}\"", site.path("jgf").display());
    site.configure(&resource(&r, &scheduling));
    let said = site.run(
        "flux kvs get resource.R; flux submit --quiet -N1 --exclusive true; flux queue drain; \
         flux job info $(flux job last) R; flux batch --quiet -N1 --exclusive --output=out --wrap \
         flux kvs get resource.R; flux queue drain; cat out",
    );
    let all: Vec<&str> = said.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(all.len(), 3, "{said}");
    for r in all {
        let r: serde_json::Value = serde_json::from_str(r).unwrap();
        assert_eq!(r["scheduling"], serde_json::json!({"x": 1}), "{said}");
    }
}

#[test]
fn resources_are_listed_in_the_configuration_itself_or_loaded_anew() {
    let site = Site::new();
    site.configure(
        "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"node7\"\ncores = \"0-3\"\n\
         gpus = \"0\"\n[[resource.config]]\nhosts = \"node7\"\nproperties = [\"big\"]\n",
    );
    let parsed = site.flux(&["R", "parse-config", "conf"]);
    assert!(parsed.status.success(), "{parsed:?}");
    std::fs::write(site.path("parsed"), parsed.stdout).unwrap();
    site.r(&["--hosts=node7", "--cores=0-1"]);
    let said = site.run(
        "flux R decode --short <parsed; flux kvs get resource.R | flux R decode --short; \
         flux resource list -no '{state} {propertiesx} {ncores}' -s free; \
         flux resource reload R; flux module unload sched-simple; flux resource reload R; \
         flux module load sched-simple; flux resource list -no '{state} {ncores}' -s free; \
         flux kvs eventlog get resource.eventlog",
    );
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("rank0/core[0-3],gpu0"), "{said}");
    assert_eq!(lines.next(), Some("rank0/core[0-3],gpu0"), "{said}");
    assert_eq!(lines.next(), Some("free big 4"), "{said}");
    assert_eq!(lines.next(), Some("free 2"), "{said}");
    assert!(said.contains("resources are busy (unload scheduler?)"), "{said}");
    assert!(said.contains("resource-define method=\"configuration\""), "{said}");
    assert!(said.contains("resource-define method=\"reload\""), "{said}");
}

#[test]
fn properties_are_given_to_ranks_when_r_is_made_and_afterwards() {
    let site = Site::new();
    let encode = |options: &[&str]| {
        let output = site.flux(&[&["R", "encode", "--cores=0-3"], options].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(said),
        }
    };
    let properties = |r: &str| {
        let r: serde_json::Value = serde_json::from_str(r).unwrap();
        r["execution"]["properties"].clone()
    };
    let r = encode(&["--hosts=fluke[3,108,6-103]", "--property=foo:2-3"]).unwrap();
    assert_eq!(properties(&r), serde_json::json!({"foo": "2-3"}));
    let all = encode(&["--hosts=n[0-3]", "-p", "all", "-p", "one:1"]).unwrap();
    assert_eq!(properties(&all), serde_json::json!({"all": "0-3", "one": "1"}));
    let bad = encode(&["--hosts=n[0-3]", "-p", "fo&o:1"]).unwrap_err();
    assert!(bad.contains("invalid character '&' in property \"fo&o\""), "{bad}");
    let missing = encode(&["--hosts=n[0-3]", "-p", "foo:999"]).unwrap_err();
    assert!(missing.contains("rank 999 not found"), "{missing}");

    // Those that are there stay.
    std::fs::write(site.path("R"), r).unwrap();
    let said = site.run("flux R set-property bar:0-1 foo:7 <R");
    let expected = serde_json::json!({"bar": "0-1", "foo": "2-3,7"});
    assert_eq!(properties(&said), expected, "{said}");
}

#[test]
fn jobs_run_where_properties_hosts_and_ranks_say() {
    let site = Site::new();
    let r = site.r(&["--hosts=test[0-3]", "--cores=0", "-p", "foo:1,3", "-p", "bar:2"]);
    site.configure(&resource(&r, "noverify = true"));
    let places = [
        ("foo", "1"),
        ("^foo", "0"),
        ("bar", "2"),
        ("host:test3", "3"),
        ("foo|bar", "1"),
        ("rank:1-2", "1"),
        ("foo&rank:3", "3"),
        ("^foo&^bar", "0"),
    ];
    let not = r#"{"not":[{"or":[{"hostlist":["test[0-1]"]},{"properties":["foo"]}]}]}"#;
    let mut script = String::new();
    for (constraint, _) in places {
        script.push_str(&format!("flux run -N1 --requires='{constraint}' flux getattr rank\n"));
    }
    script.push_str(&format!(
        "flux run -N3 --requires='foo|bar' flux getattr rank | sort | tr '\\n' ' '; echo
         flux submit --dry-run -N1 flux getattr rank |
             sed 's/\"system\": *{{/&\"constraints\":{not},/' >jobspec
         flux job attach $(flux job submit jobspec)
         flux run -N1 --requires=nope true 2>&1 | grep -c 'type=alloc severity=0 unsatisfiable'
         LC_ALL=C flux overlay status | LC_ALL=C grep -c '[^ -~]'
         LC_ALL=C.UTF-8 flux overlay status | LC_ALL=C grep -c '[^ -~]'
         flux resource status --states=help 2>&1; echo $?
         flux resource status -s bogus 2>&1 | head -n1; flux resource status -s bogus 2>&-; echo $?"
    ));
    let output = site.flux(&[
        "start",
        "--test-size=4",
        "--test-hosts=test[0-3]",
        "-o,--config-path=conf",
        &script,
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = said.lines();
    for (constraint, rank) in places {
        assert_eq!(lines.next(), Some(rank), "{constraint}: {output:?}");
    }
    let rest: Vec<&str> = lines.collect();
    let states = "flux-resource: INFO: valid states: \
                  all,online,avail,offline,exclude,drain,draining,drained";
    assert_eq!(rest[..3], ["1 2 3 ", "2", "1"], "{output:?}");
    // A tree of ASCII alone where that is all that the terminal knows.
    assert_eq!(rest[3], "0", "{output:?}");
    assert_ne!(rest[4], "0", "{output:?}");
    assert!(rest[5].starts_with(states), "{output:?}");
    let invalid = "flux-resource: ERROR: Invalid resource state bogus specified";
    assert_eq!(rest[6..], ["0", invalid, "1"], "{output:?}");
}

#[test]
fn flux_top_of_a_queue_counts_the_nodes_of_the_queue() {
    let site = Site::new();
    let r = site.r(&["--hosts=node[7-9]", "--cores=0", "--property=edge:0-1"]);
    let queues = "[queues.edge]\nrequires = [\"edge\"]\n[queues.any]\n";
    site.configure(&format!("{}{queues}", resource(&r, "noverify = true")));
    let top = |options: &str| {
        format!(
            "script -qc 'TERM=xterm flux top {options} --test-exit --test-exit-dump=top' \
             /dev/null >script.out </dev/null || cat script.out; sed -n 's/.*\\] //p' top"
        )
    };
    let said = site.run_on(
        &["-s3", "--test-hosts=node[7-9]"],
        &format!("flux queue start --all --quiet; {}; {}", top("--queue=edge"), top("")),
    );
    assert_eq!(said, "0/2\n0/2\n0/3\n0/3");
}

#[test]
fn who_loads_the_service_of_resources_finds_what_it_has_found() {
    let site = Site::new();
    let r = site.r(&["--hosts=node7", "--cores=0-9999"]);
    site.configure(&resource(&r, ""));
    let said = site.run(
        "defined() { flux kvs get --raw resource.eventlog | grep -c resource-define; }
         before=$(defined); flux resource undrain 0; flux module reload -f resource
         echo $(($(defined) - before)); flux resource drain -no '{reason}' | grep -c missing",
    );
    assert!(said.starts_with("1\n1"), "{said}");
}

#[test]
fn flux_top_says_why_an_instance_is_not_entered() {
    let site = Site::new();
    let said = site.run(
        "id=$(flux submit --job-name=hollow sleep inf); flux job wait-event $id start >/dev/null
         flux job memo $id uri=local:///nonexistent/local; mkfifo keys
         sees() { until grep -q \"$1\" seen; do sleep 0.05; done; }
         : >seen; (TERM=xterm script -qfc 'flux top' seen <keys >/dev/null) & exec 9>keys
         sees hollow; printf j >&9; printf '\\r' >&9; sees 'error connecting to Flux: '
         printf q >&9; wait $!; echo $?; FLUX_URI=nothing:/x TERM=xterm script -qc 'flux top' keys.out </dev/null",
    );
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("0"), "{said}");
    assert!(lines.next().unwrap().starts_with("flux-top: connecting to Flux: "), "{said}");
}

#[test]
fn an_event_of_resources_that_does_not_come_in_time_is_a_failure() {
    let site = Site::new();
    let said = site.run(
        "flux resource eventlog -w resource-define -t 60 >/dev/null; echo $?; \
         flux resource eventlog -w drain -t 100ms >/dev/null || echo $?; \
         flux resource eventlog -i 7 || echo $?; flux resource eventlog -i node7 >/dev/null; echo $?",
    );
    for line in [
        "flux-resource: ERROR: timeout waiting for event 'drain'",
        "flux-resource: ERROR: 7: there is no rank 7",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    let codes: Vec<&str> = said.lines().filter(|line| line.len() == 1).collect();
    assert_eq!(codes, ["0", "1", "1", "0"], "{said}");
}
