//! Job requests that are not what they say.

use flux_guests::{ALICE, BOB, FLUX, Sandbox, User};

use crate::{exec, host, input, probe};

fn parts(j: &str) -> (String, String, String) {
    let mut parts = j.splitn(3, '.').map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}

#[track_caller]
fn assert_invalid(host: &Sandbox, j: &str, text: &str) {
    exec(host, j).assert_refused(&format!("exec: signature validation failed: {text}"));
}

#[test]
fn a_request_that_says_it_is_anothers_is_refused() {
    let Some(host) = host() else { return };
    let j = host.sign_as(BOB, ALICE, "{}");
    assert_invalid(&host, &j, "sign-munge-verify: uid mismatch");
}

#[test]
fn the_owner_can_t_sign_for_a_guest() {
    let Some(host) = host() else { return };
    let j = host.sign_as(FLUX, ALICE, "{}");
    assert_invalid(&host, &j, "sign-munge-verify: uid mismatch");
}

#[test]
fn a_request_without_proof_is_refused() {
    let Some(host) = host() else { return };
    let j = flux_sign::wrap_none(ALICE.uid, b"{}");
    assert_invalid(&host, &j, "sign-unwrap: header mechanism=none not allowed");
}

#[test]
fn mechanism_none_where_a_site_allows_it_is_believed_of_the_caller_alone() {
    let Some(host) = host() else { return };
    host.configure_signing(
        "max-ttl = 60\ndefault-type = \"none\"\nallowed-types = [\"none\", \"munge\"]",
    );
    let j = flux_sign::wrap_none(ALICE.uid, b"{}");
    let text = format!("sign-none-verify: header userid {} != real {}", ALICE.uid, FLUX.uid);
    assert_invalid(&host, &j, &text);
    assert_invalid(&host, &flux_sign::wrap_none(0, b"{}"), "sign-none-verify: header userid 0");
}

#[test]
fn a_request_that_was_changed_is_refused() {
    let Some(host) = host() else { return };
    let (header, payload, signature) = parts(&host.sign(ALICE, r#"{"tasks":["true"]}"#));
    let (_, other, _) = parts(&flux_sign::wrap_none(0, br#"{"tasks":["evil"]}"#));
    let j = format!("{header}.{other}.{signature}");
    assert_invalid(&host, &j, "sign-munge-verify: SHA256 hash mismatch");
    // The same bytes in another header.
    let (bob, _, _) = parts(&host.sign(BOB, "{}"));
    let j = format!("{bob}.{payload}.{signature}");
    assert_invalid(&host, &j, "sign-munge-verify: SHA256 hash mismatch");
}

#[test]
fn the_signature_of_another_request_is_refused() {
    let Some(host) = host() else { return };
    let (header, payload, _) = parts(&host.sign(ALICE, "{\"a\":1}"));
    let (_, _, replayed) = parts(&host.sign(ALICE, "{\"a\":2}"));
    let j = format!("{header}.{payload}.{replayed}");
    assert_invalid(&host, &j, "sign-munge-verify: SHA256 hash mismatch");
}

#[test]
fn a_credential_that_signs_nothing_is_refused() {
    let Some(host) = host() else { return };
    let (header, payload, _) = parts(&host.sign(ALICE, "{}"));
    let mut command = host.command(ALICE, "munge");
    command.arg("--socket").arg(host.path("munge/socket")).args(["--string", "hello"]);
    let credential = host.run(command, "").stdout;
    let j = format!("{header}.{payload}.{}", credential.trim());
    assert_invalid(&host, &j, "sign-munge-verify: unknown hash type");
}

#[test]
fn a_signature_that_is_none_is_refused() {
    let Some(host) = host() else { return };
    let (header, payload, signature) = parts(&host.sign(ALICE, "{}"));
    let mut flipped = signature.clone().into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for bad in ["", "none", "MUNGE:AAAA:", &flipped, &signature[..middle]] {
        let j = format!("{header}.{payload}.{bad}");
        assert_invalid(&host, &j, "sign-munge-verify: munge_decode: ");
    }
}

#[test]
fn a_signature_of_another_daemon_s_key_is_refused() {
    let Some(mut host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    host.stop_munged();
    std::fs::remove_file(host.path("munge/key")).unwrap();
    if let Err(reason) = host.start_munged() {
        return println!("skipped: {reason}");
    }
    assert_invalid(&host, &j, "sign-munge-verify: munge_decode: ");
}

#[test]
fn a_request_that_has_expired_is_refused_however_fresh_its_signature_looks() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    exec(&host, &j).assert_success();
    host.configure_signing("max-ttl = 1\ndefault-type = \"munge\"\nallowed-types = [\"munge\"]");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_invalid(&host, &j, "sign-munge-verify: max-ttl exceeded: the signature expired");
}

#[test]
fn the_same_request_is_verified_more_than_once_as_rfc_39_has_it() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    for _ in 0..2 {
        let outcome = exec(&host, &j);
        outcome.assert_success();
        assert_eq!(outcome.value("uid"), Some(&*ALICE.uid.to_string()));
    }
}

#[test]
fn ids_that_no_user_has_are_refused() {
    let Some(host) = host() else { return };
    // The last one tells setresuid(2) to change nothing: the shell would run as root.
    let nobody = User { name: "x", uid: u32::MAX, extra: 0 };
    let j = host.sign_as(ALICE, nobody, "{}");
    assert_invalid(&host, &j, "sign-unwrap: header userid=4294967295 is not a user id");
    let unknown = User { name: "x", uid: 64999, extra: 0 };
    exec(&host, &host.sign(unknown, "{}")).assert_refused("exec: userid 64999 is invalid on ");
}

#[test]
fn without_the_daemon_nothing_is_believed() {
    let Some(mut host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    host.stop_munged();
    let _ = std::fs::remove_file(host.path("munge/socket"));
    let outcome = exec(&host, &j);
    outcome.assert_refused("Failed to access ");
    outcome.assert_refused("(Did you start munged?)");
}

#[test]
fn a_daemon_of_the_attackers_is_not_asked() {
    let Some(host) = host() else { return };
    let j = flux_sign::wrap_none(ALICE.uid, b"{}");
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["exec", &probe(&host), "1"]);
    command.env("MUNGE_SOCKET", "/tmp/evil").env("FLUX_CONF_DIR", "/tmp/evil");
    command.env("FLUX_SECURITY_CONF_DIR", "/tmp/evil").env("FLUX_IMP_CONFIG_PATTERN", "/tmp/*");
    host.run(command, &input(&j)).assert_refused("header mechanism=none not allowed");
}
