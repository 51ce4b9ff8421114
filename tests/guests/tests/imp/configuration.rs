//! Configuration that others could have written.

use flux_guests::{ALICE, FLUX, ROOT, Sandbox};

use crate::{exec, host};

const IMP: &str = "/etc/flux/imp/conf.d/imp.toml";
const SIGN: &str = "/etc/flux/security/conf.d/sign.toml";

#[track_caller]
fn assert_unloadable(host: &Sandbox, fault: &str) {
    for command in [&["whoami"][..], &["version"], &["run", "prolog"]] {
        let outcome = host.imp(FLUX, command, "");
        outcome.assert_refused("flux-imp: Fatal: Failed to load configuration");
        outcome.assert_refused(fault);
    }
}

#[track_caller]
fn assert_insecure(host: &Sandbox, j: &str, fault: &str) {
    let outcome = exec(host, j);
    outcome.assert_refused("exec: Error loading security context: ");
    outcome.assert_refused(fault);
}

#[test]
fn a_file_that_others_can_write_is_not_read() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    host.chmod(IMP, 0o606);
    assert_unloadable(&host, &format!("{IMP}: unable to open: bad file permissions (0606)"));
    host.chmod(IMP, 0o644);
    host.chmod(SIGN, 0o666);
    assert_insecure(&host, &j, &format!("{SIGN}: unable to open: bad file permissions (0666)"));
}

#[test]
fn a_file_that_a_group_can_write_is_not_read() {
    let Some(host) = host() else { return };
    std::os::unix::fs::chown(IMP, Some(0), Some(FLUX.uid)).unwrap();
    host.chmod(IMP, 0o664);
    assert_unloadable(&host, "bad file permissions (0664)");
}

#[test]
fn a_file_of_another_user_is_not_read() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    host.chown(SIGN, FLUX);
    assert_insecure(&host, &j, &format!("{SIGN}: unable to open: insecure file ownership"));
    host.chown(SIGN, ROOT);
    host.chown(IMP, FLUX);
    assert_unloadable(&host, &format!("{IMP}: unable to open: insecure file ownership"));
}

#[test]
fn a_directory_that_others_can_write_is_not_looked_into() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    host.chmod("/etc/flux/security/conf.d", 0o777);
    assert_insecure(&host, &j, "parent directory is world-writeable without sticky bit");
    host.chmod("/etc/flux/security/conf.d", 0o1777);
    exec(&host, &j).assert_success();
    host.chmod("/etc/flux/imp/conf.d", 0o777);
    assert_unloadable(&host, "parent directory is world-writeable without sticky bit");
    host.chmod("/etc/flux/imp/conf.d", 0o1777);
    exec(&host, &j).assert_success();
}

#[test]
fn a_directory_of_another_user_is_not_looked_into() {
    let Some(host) = host() else { return };
    host.chown("/etc/flux/imp/conf.d", FLUX);
    assert_unloadable(&host, "Invalid ownership on parent directory");
}

#[test]
fn a_directory_further_up_is_held_to_the_same_measure() {
    let Some(host) = host() else { return };
    host.chown("/etc/flux", FLUX);
    assert_unloadable(&host, "Invalid ownership on parent directory /etc/flux");
    host.chown("/etc/flux", ROOT);
    host.chmod("/etc/flux", 0o777);
    assert_unloadable(&host, "parent directory is world-writeable without sticky bit /etc/flux");
}

#[test]
fn links_and_fifos_are_not_read() {
    let Some(host) = host() else { return };
    let text = std::fs::read_to_string(IMP).unwrap();
    host.write("/etc/flux/imp/real", &text);
    std::fs::remove_file(IMP).unwrap();
    std::os::unix::fs::symlink("/etc/flux/imp/real", IMP).unwrap();
    assert_unloadable(&host, &format!("{IMP}: unable to open: symbolic link"));
    std::fs::remove_file(IMP).unwrap();
    let mkfifo = std::process::Command::new("mkfifo").arg(IMP).status().unwrap();
    assert!(mkfifo.success());
    assert_unloadable(&host, &format!("{IMP}: unable to open: File is not a regular file"));
}

#[test]
fn a_directory_that_is_a_link_is_not_looked_into() {
    let Some(host) = host() else { return };
    std::fs::rename("/etc/flux/imp/conf.d", "/etc/flux/imp/real.d").unwrap();
    std::os::unix::fs::symlink("real.d", "/etc/flux/imp/conf.d").unwrap();
    assert_unloadable(&host, "Unable to check parent directory. Unexpected file type");
}

#[test]
fn without_configuration_there_is_nothing_to_run() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    std::fs::rename(IMP, "/etc/flux/imp/conf.d/imp.conf").unwrap();
    assert_unloadable(&host, "/etc/flux/imp/conf.d/*.toml: No config file(s) found");
    std::fs::remove_dir_all("/etc/flux/imp").unwrap();
    assert_unloadable(&host, "/etc/flux/imp/conf.d: No such file or directory");
    host.configure_imp("");
    exec(&host, &j).assert_refused("exec: user flux not in allowed-users list");
}

#[test]
fn one_file_that_is_not_to_be_trusted_spoils_the_others() {
    let Some(host) = host() else { return };
    let evil = "/etc/flux/imp/conf.d/zz.toml";
    host.write(evil, "[run.evil]\npath = \"/bin/sh\"\nallowed-users = [\"flux\"]\n");
    host.chown(evil, FLUX);
    assert_unloadable(&host, &format!("{evil}: unable to open: insecure file ownership"));
}

#[test]
fn what_is_not_understood_is_not_passed_over() {
    let Some(host) = host() else { return };
    host.configure_imp("[exec]\nallowed-users = [ \"flux\"\n\n[run]\n");
    assert_unloadable(&host, &format!("{IMP}: 4: array is not closed"));
}

#[test]
fn each_fault_of_the_sign_table_is_named() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    let table = |ttl: &str, types: &str| {
        format!("max-ttl = {ttl}\ndefault-type = \"munge\"\nallowed-types = {types}")
    };
    for (ttl, types, text) in [
        ("0", "[\"munge\"]", "sign: max-ttl should be greater than zero"),
        ("60", "[]", "sign: allowed-types array is empty"),
        ("60", "[\"foo\"]", "sign: unknown mechanism=foo"),
    ] {
        host.configure_signing(&table(ttl, types));
        assert_insecure(&host, &j, text);
    }
}
