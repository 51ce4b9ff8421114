//! The unit under a real systemd: what the guide's `systemctl` lines do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use flux_hosts::{Machine, machine, until};

const CONF: &str = r#"
[access]
allow-guest-user = true
allow-root-owner = true
[bootstrap]
curve_cert = "/etc/flux/system/curve.cert"
default_port = 8050
default_bind = "tcp://lo:%p"
default_connect = "tcp://%h:%p"
hosts = [ { host = "n1" } ]
[resource]
path = "/etc/flux/system/R"
noverify = true
[kvs]
checkpoint-period = "30m"
"#;

fn prepare(tree: &Path) {
    let system = tree.join("etc/flux/system");
    fs::create_dir_all(system.join("conf.d")).unwrap();
    fs::write(system.join("conf.d/system.toml"), CONF).unwrap();
    fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost n1\n").unwrap();
    fs::write(tree.join("etc/hostname"), "n1\n").unwrap();
}

/// As the guide has it: the users, the certificate, the resources.
fn configure(machine: &Machine) {
    machine.run(&["systemd-sysusers", "/usr/lib/sysusers.d/flux.conf"]);
    machine.run(&["systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/flux.conf"]);
    machine.run(&["runuser", "-u", "flux", "--", "flux", "keygen", "/tmp/curve.cert"]);
    machine.run(&["mv", "/tmp/curve.cert", "/etc/flux/system/curve.cert"]);
    let encode = "flux R encode --hosts=n1 --cores=0-1 >/etc/flux/system/R";
    machine.run(&["sh", "-c", encode]);
}

fn queues(machine: &Machine) -> String {
    machine.run(&["sh", "-c", "flux queue status 2>&1"])
}

/// One machine does all of it, as it takes seconds to boot one.
#[test]
fn the_unit_starts_reloads_comes_back_after_a_crash_and_stays_down_after_a_shutdown() {
    let Some(machine) = machine(prepare) else { return };
    configure(&machine);
    machine.run(&["systemctl", "start", "flux"]);
    assert_eq!(machine.unit("ActiveState"), "active");
    assert_eq!(machine.unit("StatusText"), "Running as leader of 1 node Flux instance");
    let owner = machine.run(&["runuser", "-u", "flux", "--", "id", "-u"]);
    assert_eq!(machine.run(&["flux", "getattr", "security.owner"]), owner);
    for (path, mode) in [("/run/flux", "755"), ("/run/flux/local", "777"), ("/var/lib/flux", "700")]
    {
        assert_eq!(machine.run(&["stat", "-c", "%a %U", path]), format!("{mode} flux\n"));
    }
    let job = machine.run(&["runuser", "-u", "flux", "--", "flux", "run", "hostname"]);
    assert_eq!(job, "n1\n");

    // A reload succeeds, and one that the broker refuses fails and leaves it running.
    machine.run(&["systemctl", "reload", "flux"]);
    let slip = "echo '[resource]' > /etc/flux/system/conf.d/slip.toml; \
                echo 'noverify = 7' >> /etc/flux/system/conf.d/slip.toml";
    machine.run(&["sh", "-c", slip]);
    assert!(!machine.try_run(&["systemctl", "reload", "flux"]).status.success());
    assert_eq!(machine.unit("ActiveState"), "active");
    machine.run(&["rm", "/etc/flux/system/conf.d/slip.toml"]);

    // A crash: it is started again, in safe mode.
    let first = machine.unit("MainPID");
    machine.run(&["kill", "-KILL", &first]);
    until("a second broker", || {
        let pid = machine.unit("MainPID");
        pid != first && pid != "0" && machine.unit("ActiveState") == "active"
    });
    assert_eq!(machine.unit("NRestarts"), "1");
    let safe = "Flux is in safe mode due to an incomplete shutdown.";
    assert!(machine.journal().contains(safe), "{}", machine.journal());
    assert!(queues(&machine).contains(safe));

    // A shutdown is for good, until somebody starts it again.
    machine.run(&["flux", "shutdown", "--quiet"]);
    machine.wait_for_unit("inactive");
    assert_eq!(machine.unit("ExecMainStatus"), "42");
    assert_eq!(machine.unit("Result"), "success");
    machine.run(&["systemctl", "start", "flux"]);
    assert!(!queues(&machine).contains(safe));

    // systemctl stop ends it in order.
    machine.run(&["systemctl", "stop", "flux"]);
    assert_eq!(machine.unit("ActiveState"), "inactive");
    assert_eq!(machine.unit("Result"), "success");
    assert!(machine.journal().contains("signal: SIGTERM"), "{}", machine.journal());
    machine.run(&["systemctl", "start", "flux"]);
    assert!(!queues(&machine).contains(safe));
}
