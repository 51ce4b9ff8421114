//! Who connects, and as whom.

use std::io::Read;
use std::os::unix::net::UnixStream;

use flux_client::Client;
use flux_guests::{ALICE, BOB, FLUX, ROOT, as_user};
use flux_protocol::credential::{Credential, Rolemask, Userid};
use serde_json::json;

use super::host::{Instance, ask};
use super::{captured, requests};

#[test]
fn guests_connect_when_they_may_and_are_who_the_kernel_says() {
    let config = "[access]\nallow-guest-user = true\nallow-root-owner = true\n";
    let Some(instance) = Instance::start(config) else { return };
    captured::a_guest_is_told_what_a_real_flux_tells_him(&instance);
    requests::guests_are_refused_what_is_the_owners_and_nothing_else(&instance);

    // What a guest says of himself is overwritten.
    let socket = instance.host.path("run/local-0");
    let pong = as_user(ALICE, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async move {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::UnixStream::from_std(stream).unwrap();
            let forged = Credential { userid: Userid(0), rolemask: Rolemask::OWNER };
            ask(&Client::from_stream(stream, forged), "broker.ping", &json!({})).await.unwrap()
        })
    });
    assert_eq!(pong["userid"], ALICE.uid);
    assert_eq!(pong["rolemask"], 6, "user and local");

    // Root has the owner's role, since that is configured.
    let pong = instance.ask(ROOT, "broker.ping", json!({})).unwrap();
    assert_eq!((&pong["userid"], &pong["rolemask"]), (&json!(0), &json!(5)));

    // Names of services that begin with somebody's id are his.
    let add = |name: String| instance.ask(ALICE, "service.add", json!({ "service": name }));
    assert_eq!(add("foo".to_owned()).unwrap_err().0, 1);
    assert_eq!(add(format!("{}-x", BOB.uid)).unwrap_err().0, 1);
    assert!(add(format!("{}-x", ALICE.uid)).is_ok());

    // The primary namespace is the owner's.
    let lookup = json!({ "key": "resource.R", "namespace": "primary", "flags": 0 });
    assert_eq!(instance.ask(ALICE, "kvs.lookup", lookup.clone()).unwrap_err().0, 1);
    assert!(instance.ask(FLUX, "kvs.lookup", lookup).is_ok());
    for args in [
        &["setattr", "log-stderr-level", "3"][..],
        &["dmesg"],
        &["shutdown"],
        &["exec", "true"],
        &["module", "remove", "job-list"],
        &["config", "reload"],
        &["kvs", "get", "resource.R"],
    ] {
        let outcome = instance.flux(BOB, args);
        outcome.assert_failure();
        let text = &outcome.stderr;
        let why = text.contains("owner credentials") || text.contains("Operation not permitted");
        assert!(why, "{args:?}: {outcome:?}");
    }
    instance.flux(BOB, &["uptime"]).assert_success();
    instance.flux(BOB, &["getattr", "size"]).assert_success();
    instance.flux(BOB, &["overlay", "status"]).assert_success();

    // A message of a guest's about the store is not believed, whatever its topic.
    let before = instance.flux(FLUX, &["kvs", "get", "resource.R"]).stdout;
    let setroot = json!({
        "namespace": "primary", "rootseq": 1_000_000,
        "rootref": "sha1-da39a3ee5e6b4b0d3255bfef95601890afd80709", "names": [], "keys": [],
        "owner": FLUX.uid,
    });
    instance.publish(BOB, "kvs.namespace-primary-setroot", setroot);
    assert_eq!(instance.flux(FLUX, &["kvs", "get", "resource.R"]).stdout, before);

    // Without the configuration, they are sent away.
    instance
        .host
        .write("/etc/flux/system/conf.d/system.toml", "[access]\nallow-guest-user = false\n");
    instance.flux(FLUX, &["config", "reload"]).assert_success();
    captured::a_guest_is_sent_away_as_by_a_real_flux(&instance);
    let outcome = instance.flux(ALICE, &["uptime"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
}
