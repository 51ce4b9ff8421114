//! How the broker's configuration is read: which files, what is refused, and what a query prints.
//! The programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
fn flux(dir: &Path, conf_dir: Option<&str>, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120", env!("CARGO_BIN_EXE_flux")]).args(args).current_dir(dir);
    command.env_remove("FLUX_URI").env_remove("FLUX_CONF_DIR").stdin(Stdio::null());
    if let Some(conf_dir) = conf_dir {
        command.env("FLUX_CONF_DIR", conf_dir);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("c")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join("c").join(name), text).unwrap();
    }
    dir
}

#[test]
fn toml_files_of_the_folder_are_merged_and_others_are_not_read() {
    let dir = folder(&[
        ("a.toml", "[tbon]\ntcp_user_timeout = \"2m\"\n"),
        ("b.toml", "[kvs]\ncheckpoint-period = \"30m\"\n"),
        ("c.conf", "[policy]\nx = 1\n"),
        (".hidden.toml.bak", "[policy]\ny = 1\n"),
    ]);
    std::fs::create_dir(dir.path().join("other")).unwrap();
    let line = "flux config get; flux config get tbon.tcp_user_timeout; \
         flux config get --type=fsd-integer kvs.checkpoint-period; \
         flux config get --default=x no.key; flux config get no.key; echo rc $?; \
         flux config get --quiet no.key; echo rc $?; \
         flux config get --type=integer tbon.tcp_user_timeout; echo rc $?; \
         flux getattr config.path";
    let (code, out, err) = flux(dir.path(), Some("other"), &["start", "-o,-cc", line]);
    let expected = "{\"tbon\":{\"tcp_user_timeout\":\"2m\"},\"kvs\":{\"checkpoint-period\":\"30m\"}}\n\
         2m\n1800\nx\nrc 1\nrc 1\nrc 1\nc\n";
    assert_eq!((code, out.as_str()), (Some(0), expected), "{err}");
    assert_eq!(err.matches("no.key is not set").count(), 1, "{err}");
    let (_, out, err) = flux(dir.path(), Some("c"), &["start", "flux config get tbon"]);
    assert_eq!(out, "{\"tcp_user_timeout\":\"2m\"}\n", "{err}");
    let (_, offline, err) = flux(dir.path(), None, &["config", "get", "-c", "c", "kvs"]);
    assert_eq!(offline, "{\"checkpoint-period\":\"30m\"}\n", "{err}");
}

#[test]
fn the_example_is_the_same_in_one_file_and_in_many() {
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/examples/system/conf.d/system.toml");
    let text = std::fs::read_to_string(example).unwrap();
    let one = folder(&[("system.toml", &text)]);
    let (head, rest) = text.split_once("\n[").unwrap();
    assert!(head.lines().all(|line| line.is_empty() || line.starts_with('#')));
    let parts: Vec<(String, String)> = rest
        .split("\n[")
        .enumerate()
        .map(|(at, part)| (format!("{at}.toml"), format!("[{part}")))
        .collect();
    let parts: Vec<(&str, &str)> =
        parts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let many = folder(&parts);
    let get = |dir: &Path, key: &[&str]| {
        flux(dir, None, &[&["config", "get", "-c", "c"], key].concat()).1
    };
    assert_eq!(get(one.path(), &[]), get(many.path(), &[]));
    assert_eq!(get(one.path(), &["policy.limits.job-size.max.nnodes"]), "8\n");
    assert_eq!(
        get(one.path(), &["policy.limits.job-size"]),
        "{\"max\":{\"nnodes\":8,\"ncores\":32}}\n"
    );
}

#[test]
fn mistakes_stop_the_broker_with_file_line_and_key() {
    let durations = [
        "tbon.tcp_user_timeout",
        "kvs.checkpoint-period",
        "job-manager.inactive-age-limit",
        "policy.jobspec.defaults.system.duration",
        "policy.limits.duration",
        "archive.period",
    ];
    let mut cases: Vec<(String, Vec<&str>)> = durations
        .iter()
        .map(|key| {
            (format!("\n{key} = \"xx\"\n"), vec!["x.toml:2:", key.rsplit('.').next().unwrap()])
        })
        .collect();
    for (text, wanted) in [
        ("[bootstrap", vec!["x.toml:1:"]),
        ("[exec]\nmethod = \"wrong\"\n", vec!["x.toml:2:", "unknown exec.method 'wrong'"]),
        ("[exec]\nkill-timeout = \"0s\"\n", vec!["x.toml:2:", "invalid kill-timeout: 0s"]),
        ("[exec]\nmax-kill-count = 0\n", vec!["x.toml:2:", "invalid max-kill-count=0"]),
        ("[bootstrap]\nnonsense = 1\n", vec!["x.toml:2:", "[bootstrap]", "nonsense"]),
        (
            "[access]\nallow-guest-user = \"zz\"\n",
            vec!["x.toml:2:", "expected boolean, got string"],
        ),
        (
            "[job-manager.prolog]\ncommand = \"x\"\n",
            vec!["x.toml:2:", "[job-manager.prolog]: command must be an array"],
        ),
    ] {
        cases.push((text.to_owned(), wanted));
    }
    for (text, wanted) in cases {
        let dir = folder(&[("x.toml", &text)]);
        let conf = dir.path().join("c").display().to_string();
        let (code, checked, _) = flux(dir.path(), None, &["config", "check", &conf]);
        assert_eq!(code, Some(1), "{text}: {checked}");
        assert!(wanted.iter().all(|word| checked.contains(word)), "{wanted:?}: {checked}");
        let (code, _, err) = flux(dir.path(), None, &["start", "-o,-cc", "true"]);
        assert_eq!(code, Some(1), "{text}: {err}");
        assert!(err.contains("Config file error: "), "{err}");
        for word in wanted {
            assert!(err.contains(word), "{word} is not in: {err}");
        }
    }
}

#[test]
fn a_limit_that_a_reload_lowers_holds_for_the_next_job() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../plugins-wasm/dist/fixtures/fixture-config.wasm");
    let text = format!(
        "[policy.limits]\nduration = \"2h\"\n[[job-manager.plugins]]\nload = {fixture:?}\n\
         caps = [\"config:fixture\"]\n"
    );
    let dir = folder(&[("a.toml", &text)]);
    let line = "flux run -t 1h true; echo $?; sed -i s/2h/10m/ c/a.toml
        echo '[fixture]\nis = \"new\"' >c/b.toml; flux config reload; echo $?
        flux run -t 1h true; echo $?; flux jobtap query fixture-config.wasm";
    let (_, out, err) = flux(dir.path(), None, &["start", "-o,-cc", line]);
    assert!(out.starts_with("0\n0\n1\n"), "{out}{err}");
    assert!(err.contains("requested duration (1h) exceeds policy limit of 10m"), "{err}");
    assert!(out.contains("\"conf.update\":{\"calls\":1"), "plugins are told: {out}");
    assert!(out.contains("\"is\":\"new\""), "{out}");
}

/// Configurations that stop a start, and what is said of each after `x.toml:`.
fn that_stop_a_start(dir: &Path) -> Vec<(String, &'static str)> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins-wasm/dist");
    let module = std::fs::read(dist.join("perilog.wasm")).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let plugin = |load: &str, more: &str| {
        format!("[job-manager]\nplugins = [\n {{ load = \"{load}\"{more} }}\n]\n")
    };
    let junk = file("junk.wasm", b"junk");
    let short = file("short.wasm", &module[..3000]);
    let native = file("native.so", b"\x7fELF\x02\x01\x01\0");
    let pinned = format!(", sha256 = \"{}\"", "0".repeat(64));
    let hosts = "[bootstrap]\nhosts = [{ host = \"a[\" }]\n";
    vec![
        (
            plugin("perilog.wasm", &pinned),
            "3: [job-manager.plugins][0]: load: perilog.wasm: sha256",
        ),
        (plugin(&junk, ""), "junk.wasm: not a WebAssembly module"),
        (plugin(&short, ""), "short.wasm: truncated WebAssembly module (3000 bytes)"),
        (plugin(&native, ""), "native.so: a native ELF object"),
        (plugin("nope", ""), "3: [job-manager.plugins][0]: load: nope: No such plugin found"),
        (plugin("", ""), "3: error parsing [job-manager.plugins][0] config table: load: is empty"),
        (plugin("perilog", ", memory = \"1k\""), "memory: 1024 bytes are too little"),
        (
            plugin("jobspec.wasm", ""),
            "a validator plugin, but a jobtap plugin is wanted here: list it in [ingest.validator]",
        ),
        (
            "[sched]\nplugin = \"perilog.wasm\"\n".to_owned(),
            "2: [sched] plugin: perilog.wasm: a jobtap plugin, but a scheduler plugin is wanted",
        ),
        (
            "[ingest.validator]\nplugins = [\"perilog\"]\n".to_owned(),
            "a jobtap plugin, but a validator plugin is wanted here",
        ),
        (
            "[ingest.validator]\nplugins = [\"require-instance\"]\nargs = [\"--nope\"]\n"
                .to_owned(),
            "3: [ingest.validator] args: unknown argument '--nope'",
        ),
        (
            "[job-manager]\nplugins = [{ remove = \"nope\" }]\n".to_owned(),
            "2: [job-manager.plugins][0]: remove: nope: failed to find plugin to remove",
        ),
        (
            "[sched-simple]\nqueue-depth = 0\n".to_owned(),
            ": [sched-simple] queue-depth='0' is invalid",
        ),
        (
            "[content-sqlite]\nmax_checkpoints = 0\n".to_owned(),
            "2: error parsing [content-sqlite] config table: content-sqlite.max_checkpoints must be",
        ),
        ("[tbon]\ntopo = \"ring\"\n".to_owned(), "tbon.topo: unknown topology scheme 'ring'"),
        (hosts.to_owned(), "[bootstrap]: invalid hosts[0]: host \"a[\" is not a valid hostlist"),
        (
            "[ingest.validator]\nargs = [\"--require-version=7\"]\n".to_owned(),
            "[ingest.validator]: jobspec.wasm: plugin jobspec refused to start",
        ),
        (
            "[sched]\nplugin = { load = \"sched-fifo\", record = \"/nonexistent/x\" }\n".to_owned(),
            "2: [sched] plugin: sched-fifo: record: /nonexistent/x: No such file",
        ),
        ("[sched]\nplugin = 3\n".to_owned(), "2: [sched] plugin: expected a name or a table"),
        (
            "[kvs]\ncheckpoint-period = 1979-05-27\n".to_owned(),
            "2: error parsing [kvs] config table: checkpoint-period: expected string, got date",
        ),
        (
            "[policy]\nscheduler = 3\n".to_owned(),
            "2: error parsing [policy] config table: 'scheduler'",
        ),
    ]
}

#[test]
fn what_would_stop_a_start_is_found_by_the_check_and_refused_by_a_reload() {
    let dir = folder(&[("a.toml", "[kvs]\n")]);
    std::fs::create_dir(dir.path().join("one")).unwrap();
    let mut line = String::new();
    let cases = that_stop_a_start(dir.path());
    for (at, (text, said)) in cases.iter().enumerate() {
        std::fs::write(dir.path().join("one/x.toml"), text).unwrap();
        std::fs::write(dir.path().join(format!("{at}.toml")), text).unwrap();
        line.push_str(&format!("cp {at}.toml c/x.toml; flux config reload 2>&1; echo {at} $?\n"));
        let (code, out, _) = flux(dir.path(), None, &["config", "check", "one"]);
        assert_eq!((code, out.lines().count()), (Some(1), 1), "{text}: {out}");
        assert!(out.starts_with("one/x.toml:") && out.contains(said), "{said}: {out}");
        let (code, _, err) = flux(dir.path(), None, &["start", "-o,-cone", "true"]);
        let of_line = said.split_once(": ").map_or(*said, |(_, text)| text);
        assert_eq!(code, Some(1), "{text}: {err}");
        assert_eq!(err.lines().filter(|line| line.contains(of_line)).count(), 1, "{text}: {err}");
    }
    line.push_str("flux config get");
    let (_, out, err) = flux(dir.path(), None, &["start", "-o,-cc", &line]);
    let mut rest = out.as_str();
    for (at, (_, said)) in cases.iter().enumerate() {
        let (told, after) = rest.split_once(&format!("\n{at} 1\n")).unwrap_or_else(|| {
            panic!("{at} was taken: {out}{err}");
        });
        assert!(told.contains("x.toml:") && told.contains(said), "{said}: {told}");
        rest = after;
    }
    assert_eq!(rest, "{\"kvs\":{}}\n", "nothing has changed");
}

#[test]
fn keys_that_look_like_slips_are_told_where_others_may_have_keys_of_their_own() {
    for (text, said) in [
        ("[job-manager]\ninactive-age-limt = \"7d\"\n", "(did you mean 'inactive-age-limit'?)"),
        ("[sched]\nplugn = \"x\"\n", "(did you mean 'plugin'?)"),
        ("[job-manager]\nmine = 1\n[job-manager.priority]\nx = 1\n", ""),
        (
            "[ingest.validator]\nplugins = [\"require-instance\"]\n\
             args = [\"--require-instance-mincores=2\"]\n\
             [ingest.validator.require-instance]\nminnodes = 2\n",
            "",
        ),
        ("[ingest.validator]\nplugins = [\"jobspec\"]\n[ingest.validator.other]\nx = 1\n", "other"),
    ] {
        let dir = folder(&[("x.toml", text)]);
        let (code, out, _) = flux(dir.path(), None, &["config", "check", "c"]);
        match said {
            "" => assert_eq!((code, out.as_str()), (Some(0), "ok\n"), "{text}"),
            said => assert!(code == Some(1) && out.contains(said), "{text}: {out}"),
        }
    }
}

#[test]
fn files_that_are_no_text_and_keys_of_two_files_are_told_with_their_lines() {
    let dir = folder(&[("a.toml", "[kvs]\ncheckpoint-period = \"1m\"\n")]);
    std::fs::write(dir.path().join("c/b.toml"), b"\n[kvs]\n# \xff\n").unwrap();
    let (_, out, _) = flux(dir.path(), None, &["config", "check", "c"]);
    assert_eq!(out, "c/b.toml:3: not UTF-8 text; save the file as UTF-8\n");
    std::fs::write(dir.path().join("c/b.toml"), "\n[kvs]\ncheckpoint-period = \"2m\"\n").unwrap();
    let (_, out, _) = flux(dir.path(), None, &["config", "check", "c"]);
    let said = "c/b.toml:3: 'kvs.checkpoint-period' is set in another file of the directory already \
                (c/a.toml:2)\n";
    assert_eq!(out, said);
    let bom = "\u{feff}[kvs]\r\ncheckpoint-period = \"xx\"\r\n";
    std::fs::write(dir.path().join("c/a.toml"), bom).unwrap();
    std::fs::remove_file(dir.path().join("c/b.toml")).unwrap();
    let (_, out, _) = flux(dir.path(), None, &["config", "check", "c"]);
    assert!(out.starts_with("c/a.toml:2: ") && out.lines().count() == 1, "{out}");
}

#[test]
fn a_reload_finds_out_that_a_module_is_not_the_one_that_is_pinned() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins-wasm/dist");
    let sums = std::fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    let line = sums.lines().find(|line| line.ends_with(" submit-hold.wasm")).unwrap();
    let digest = line.split(' ').next().unwrap();
    let dir = folder(&[]);
    let module = dir.path().join("mine.wasm");
    std::fs::copy(dist.join("submit-hold.wasm"), &module).unwrap();
    let table = format!(
        "[job-manager]\nplugins = [{{ load = {:?}, sha256 = \"{digest}\" }}]\n",
        module.to_str().unwrap()
    );
    std::fs::write(dir.path().join("c/x.toml"), table).unwrap();
    let line = "flux config reload; echo $?; printf x >>mine.wasm; flux config reload; echo $?
        flux jobtap list";
    let (_, out, err) = flux(dir.path(), None, &["start", "-o,-cc", line]);
    assert_eq!(out, "0\n1\nmine.wasm\n", "{err}");
    let said = format!("sha256 mismatch: configured {digest}, file has ");
    assert!(err.contains("[job-manager.plugins][0]: load: ") && err.contains(&said), "{err}");
}

/// A prolog without a command is refused by the plugin alone.
#[test]
fn a_reload_that_a_plugin_refuses_leaves_everything_as_it_was() {
    let plugins = "[job-manager]\nplugins = [ { load = \"perilog.so\" } ]\n";
    let dir = folder(&[("a.toml", plugins)]);
    let refused = "[job-manager.prolog]\ntimeout = 30\nkill-timeout = \"1s\"\n";
    std::fs::write(dir.path().join("refused.toml"), refused).unwrap();
    let taken = format!("{refused}command = [ \"sh\", \"-c\", \"echo ran >>ran\" ]\n");
    std::fs::write(dir.path().join("taken.toml"), taken).unwrap();
    let line = "flux config get >before; cp refused.toml c/b.toml; flux config reload; echo $?
        flux config get | diff before - && flux run true; echo $?; ls ran
        cp taken.toml c/b.toml; flux config reload; echo $?; flux run true; cat ran
        flux jobtap query perilog.so";
    let (_, out, err) = flux(dir.path(), None, &["start", "-o,-cc", line]);
    let told = "error updating job-manager: c/b.toml:1: plugin perilog.wasm refuses: \
                [job-manager.prolog]: no command specified and exec.imp not defined\n";
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..4], ["1", "0", "0", "ran"], "{out}{err}");
    let has = |text| lines[4].contains(text);
    assert!(has("\"timeout\":30.0") && has("\"kill-timeout\":1.0"), "{out}");
    assert_eq!(err.matches(told).count(), 1, "{err}");
    std::fs::write(dir.path().join("c/b.toml"), refused).unwrap();
    let (code, out, err) = flux(dir.path(), None, &["start", "-o,-cc", "echo started"]);
    assert!(code != Some(0) && !out.contains("started"), "{out}");
    let told = "no command specified and exec.imp not defined";
    assert_eq!(err.lines().filter(|line| line.contains(told)).count(), 1, "{err}");
}

/// Whether validators and policies that are configured, and no others, judge a job.
#[test]
fn jobs_meet_the_validators_and_policies_of_the_configuration_alone() {
    let bare = folder(&[]);
    let line = "
        many=$(flux submit -n100000 true); flux run true; echo run $?
        flux job wait-event -q -t 60 $many clean
        flux job eventlog $many | grep -o 'type=\"alloc\" severity=0 note=\"unsatisfiable request'
        flux jobs -no '{result}' $many
        id=$(flux submit sleep 100); flux job wait-event -q -t 60 $id start
        flux jobs -no '{annotations.sched.resource_summary}' $id
        flux kvs dir -R $(flux job id --to=kvs $id) | sed 's/ .*//; s/.*[.]//' | tr '\\n' ' '
        flux cancel $id; flux job wait-event -q -t 60 $id clean; echo; echo $id
        until flux dmesg | grep 'job-ingest.debug.*inactivity timeout'; do sleep 0.1; done
        flux dmesg | grep -o 'sched-simple.debug.*'";
    let (code, out, err) = flux(bare.path(), None, &["start", line]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, Some(0), "{out}{err}");
    let unsatisfiable = "type=\"alloc\" severity=0 note=\"unsatisfiable request";
    assert_eq!(lines[..5], ["run 0", unsatisfiable, "FAILED", "rank0/core0", lines[4]], "{out}");
    for key in ["J", "R", "eventlog", "guest", "jobspec"] {
        assert!(lines[4].split(' ').any(|found| found == key), "{key}: {out}");
    }
    let id = lines[5];
    assert!(lines[6].contains("job-ingest.debug[0]: jobspec: inactivity timeout"), "{out}");
    for wanted in [
        format!("req: {id}: spec={{0,1,1}} duration=0.0"),
        format!("alloc: {id}: rank0/core0"),
        "free: rank0/core0 (final)".to_owned(),
    ] {
        let wanted = format!("sched-simple.debug[0]: {wanted}");
        assert!(lines[7..].contains(&&*wanted), "{wanted}: {out}");
    }

    let all = folder(&[(
        "x.toml",
        "[ingest.validator]\nplugins = [\"jobspec\", \"feasibility\", \"require-instance\"]\n\
         [policy.jobspec.defaults.system]\nduration = \"1s\"\n\
         [policy.limits]\njob-size.max.nnodes = 8\n[resource]\nnoverify = true\n\
         [[resource.config]]\nhosts = \"n[0-9]\"\ncores = \"0\"\n",
    )]);
    let line = "
        flux submit -N11 flux start true; flux submit -n1 true; flux submit -N9 flux start true
        flux mini run -n 1000 myapp
        id=$(flux submit -N8 flux start true); flux job wait-event $id priority | grep -c priority=16
        id=$(flux batch -n1 --wrap sleep 1000)
        flux job info $id jobspec | grep -o '\"duration\": *[0-9.]*'
        flux job wait-event -q -t 100 $id clean
        flux job eventlog $id | grep -o 'type=\"timeout\" severity=0'
        flux job status $id 2>/dev/null || echo failed
        id=$(flux batch -n1 -t 2m --wrap true)
        flux job info $id jobspec | grep -o '\"duration\": *[0-9.]*'";
    let (_, out, err) = flux(all.path(), None, &["start", "-o,-cc", line]);
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 4, "{err}");
    assert!(lines[0].contains("unsatisfiable request"), "{err}");
    assert!(lines[1].contains("Direct job submission is disabled"), "{err}");
    assert!(lines[2].contains("requested nnodes (9) exceeds policy limit of 8"), "{err}");
    // The words of the guide come first, and bring their number.
    let guide = "flux-mini: ERROR: [Errno 22] Direct job submission is disabled for this instance. \
                 Please use the batch or alloc subcommands of flux-mini(1)";
    let also = lines[3].strip_prefix(guide).unwrap_or_else(|| panic!("{err}"));
    assert!(also.starts_with(", unsatisfiable request"), "{err}");
    let lines: Vec<String> = out.lines().map(|line| line.replace(' ', "")).collect();
    assert_eq!(
        lines,
        ["1", "\"duration\":1.0", "type=\"timeout\"severity=0", "failed", "\"duration\":120.0"],
        "{out}"
    );

    let unknown = folder(&[("x.toml", "[ingest.validator]\nplugins = [\"jobspec\", \"nope\"]\n")]);
    let (code, out, err) = flux(unknown.path(), None, &["start", "-o,-cc", "echo started"]);
    assert_eq!((code, &*out), (Some(1), ""), "{err}");
    let said = "[ingest.validator]: validator plugin 'nope' not found";
    assert!(err.contains(said), "{err}");
}

/// What rc1 loads there would start with another configuration otherwise.
#[test]
fn a_follower_knows_the_configuration_of_rank_0_before_it_goes_on() {
    let dir = folder(&[]);
    let line = "flux exec -r 1,3 flux dmesg";
    let args = ["start", "-s", "4", "-Stbon.topo=kary:2", "-Slog-ring-size=4096", line];
    let (code, out, err) = flux(dir.path(), None, &args);
    assert_eq!(code, Some(0), "{err}");
    for rank in ["[1]", "[3]"] {
        let lines: Vec<&str> = out.lines().filter(|line| line.contains(rank)).collect();
        let first = |what: &str| lines.iter().position(|line| line.contains(what));
        let known = first("parent update ").unwrap_or_else(|| panic!("{out}"));
        let goes_on = first("join->init").unwrap_or_else(|| panic!("{out}"));
        assert!(known < goes_on, "{out}");
    }
}

#[test]
fn what_is_no_file_among_the_files_is_refused_and_nobody_waits_for_it() {
    let dir = folder(&[("a.toml", "[kvs]\ncheckpoint-period = \"30m\"\n")]);
    let line = "mkfifo c/f.toml; flux config reload; echo $?; flux config check c; echo $?
        rm c/f.toml; mkdir c/f.toml; flux config reload; echo $?
        rmdir c/f.toml; flux config reload; echo $?; flux config get kvs";
    let (_, out, err) = flux(dir.path(), None, &["start", "-o,-cc", line]);
    assert!(out.ends_with("1\n1\n0\n{\"checkpoint-period\":\"30m\"}\n"), "{out}{err}");
    let said = format!("{out}{err}");
    assert_eq!(said.matches("f.toml: not a regular file").count(), 3, "{said}");
}
