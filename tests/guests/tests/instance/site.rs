//! One broker as a site has it: started as the instance's owner, without a home, from files that
//! root has written, and found by everybody where the programs look for it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flux_guests::{ALICE, FLUX, Outcome, Sandbox, User, sandbox};

const CONFIG: &str = r#"
[bootstrap]
curve_cert = "/etc/flux/system/curve.cert"
default_bind = "ipc:///run/flux/%h"
default_connect = "ipc:///run/flux/%h"
hosts = [{ host = "node0" }]
[resource]
noverify = true
[[resource.config]]
hosts = "node0"
cores = "0"
"#;

fn start(host: &Sandbox) -> Child {
    let log = std::fs::File::create(host.path("log")).unwrap();
    host.command(FLUX, host.program("flux"))
        .args(["broker", "--config-path=/etc/flux/system/conf.d", "-Srundir=/run/flux"])
        .args(["-Slocal-uri=local:///run/flux/local", "-Sbroker.rc2_none"])
        .arg(format!("-Sstatedir={}", host.path("state").display()))
        .args(["-Slog-stderr-level=6", "-Slog-stderr-mode=local"])
        .env("HOME", "/nonexistent")
        .env("FLUX_FAKE_HOSTNAME", "node0")
        .env("FLUX_PLUGIN_PATH", host.source("plugins-wasm/dist"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn log(host: &Sandbox) -> String {
    std::fs::read_to_string(host.path("log")).unwrap_or_default()
}

/// Nobody is told where the instance is.
fn flux(host: &Sandbox, user: User, args: &[&str]) -> Outcome {
    let mut command = host.command(user, host.program("flux"));
    command.args(args);
    host.run(command, "")
}

/// The exit code of a broker that ends.
fn code(host: &Sandbox, broker: &mut Child) -> Option<i32> {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(status) = broker.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > limit {
            let _ = broker.kill();
            panic!("the broker does not end: {}", log(host));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_broker_takes_what_root_has_written_and_writes_nothing_there() {
    let Some(mut host) = sandbox() else { return };
    host.mount_empty("/run");
    for folder in ["/run/flux", host.path("state").to_str().unwrap()] {
        std::fs::create_dir(folder).unwrap();
        host.chown(folder, FLUX);
        host.chmod(folder, 0o755);
    }
    host.write("/etc/flux/system/conf.d/system.toml", CONFIG);
    let made = host.home(FLUX).join("cert");
    flux(&host, FLUX, &["keygen", made.to_str().unwrap()]).assert_success();
    std::fs::rename(made, host.path("etc/flux/system/curve.cert")).unwrap();
    host.chmod("/etc/flux/system/curve.cert", 0o400);
    host.script("etc/flux/rc1.d/10-site", "echo the site begins on rank $(flux getattr rank)");
    host.script("etc/flux/rc3.d/10-site", "echo the site ends as $(id -u)");
    host.write("/etc/flux/rc1.d/README", "not to be run");
    host.write(host.path("stamp"), "");

    let nowhere = flux(&host, FLUX, &["getattr", "size"]);
    nowhere.assert_failure();
    assert!(nowhere.stderr.contains("/run/flux/local"), "{nowhere:?}");

    let mut broker = start(&host);
    let limit = Instant::now() + Duration::from_secs(120);
    while !flux(&host, FLUX, &["uptime"]).stdout.contains(" run ") {
        assert!(Instant::now() < limit, "{}", log(&host));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(flux(&host, FLUX, &["getattr", "size"]).stdout, "1\n");
    let outcome = flux(&host, FLUX, &["run", "id", "-u"]);
    assert_eq!(outcome.stdout, format!("{}\n", FLUX.uid), "{outcome:?}");

    // It is the owner's alone, as nothing is said of guests.
    let refused = flux(&host, ALICE, &["getattr", "size"]);
    refused.assert_failure();
    assert!(refused.stderr.contains("Operation not permitted"), "{refused:?}");
    let denied = |line: &str| line.contains(&ALICE.uid.to_string()) && line.contains("denied");
    assert!(log(&host).lines().any(denied), "{}", log(&host));

    flux(&host, FLUX, &["shutdown", "--quiet"]).assert_success();
    assert_eq!(code(&host, &mut broker), Some(0), "{}", log(&host));
    let said = log(&host);
    for line in ["the site begins on rank 0", &format!("the site ends as {}", FLUX.uid)] {
        assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
    }
    let newer = Command::new("find").args(["/etc/flux", "-newer"]).arg(host.path("stamp")).output();
    assert_eq!(String::from_utf8_lossy(&newer.unwrap().stdout), "");

    // A script of the site that fails is no start.
    host.script("etc/flux/rc1.d/20-fails", "echo no licence; exit 1");
    let mut broker = start(&host);
    assert_eq!(code(&host, &mut broker), Some(1), "{}", log(&host));
    let said = log(&host);
    assert!(said.contains("no licence") && said.contains("20-fails"), "{said}");
}
