//! `config.*`.

use std::time::Duration;

use flux_broker::attrs::Access;
use flux_broker::config::Config;
use flux_broker::context::Context;
use flux_broker::handle::Handle;
use flux_broker::methods::Methods;
use flux_broker::service::Service;
use flux_broker::services::broker::BrokerService;
use flux_broker::services::config::ConfigService;
use flux_broker::services::connector_local::ConnectorLocal;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::config as rpc;
use flux_replay::{Replay, Rules, Vector};
use serde_json::json;

use crate::instance::{Instance, run};

#[test]
fn the_configuration_is_served_and_loaded_as_captured() {
    run(async {
        let instance = start().await;
        let vector = Vector::load("config").unwrap();
        let socket = instance.socket();
        Replay::new(&vector, Rules::default(), &socket).play().await.assert_equal();
        instance.sweep(|topic| topic.starts_with("config.")).await;
        instance.stop().await;
    });
}

#[test]
fn a_reload_reads_the_files_and_tells_those_who_follow() {
    run(async {
        let instance = start().await;
        let handle = Handle::new(instance.broker.router().clone());
        let mut stream = handle.stream::<rpc::Get>(Nodeid::ANY, &Empty).unwrap();
        assert!(stream.next().await.unwrap().is_empty());
        put(&instance, "[access]\nallow-guest-user = true\n");
        handle.rpc::<rpc::Reload>(&Empty).await.unwrap();
        let object = stream.next().await.unwrap();
        assert_eq!(object["access"], json!({"allow-guest-user": true}));
        assert!(instance.broker.connector_status().access().allow_guest_user);
        instance.stop().await;
    });
}

#[test]
fn a_broken_file_is_named_with_its_line_and_changes_nothing() {
    run(async {
        let instance = start().await;
        let handle = Handle::new(instance.broker.router().clone());
        put(&instance, "[policy.limits]\nduration = \"2h\"\n");
        handle.rpc::<rpc::Reload>(&Empty).await.unwrap();
        let before = instance.broker.config();
        for (text, expected) in [
            ("[policy.limits]\nduration = \"2h\"\n[x", ":3: "),
            ("\n\n[bootstrap]\nnonsense = 1\n", ":4: error parsing [bootstrap] config table: "),
            ("[bootstrap]\ndefault_prt = 1\n", "(did you mean 'default_port'?)"),
            ("[access]\nallow-guest-user = \"zz\"\n", "expected boolean, got string"),
            ("[policy.limits]\nduration = \"xx\"\n", ":2: error parsing [policy.limits] config"),
            ("[kvs]\ncheckpoint-period = \"zz\"\n", "invalid checkpoint-period config: zz"),
        ] {
            put(&instance, text);
            let failure = handle.rpc::<rpc::Reload>(&Empty).await.unwrap_err();
            assert_eq!(failure.errno, Errno::EINVAL);
            let text = failure.text.unwrap();
            assert!(text.starts_with("Config file error: "), "{text}");
            assert!(text.contains("x.toml:") && text.contains(expected), "{text}");
            assert_eq!(instance.broker.config(), before);
        }
        instance.stop().await;
    });
}

#[test]
fn when_one_module_refuses_those_that_had_accepted_get_the_old_configuration_back() {
    run(async {
        let instance = start().await.with_module::<Picky>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let config = json!({"access": {"allow-guest-user": true}, "picky": 1});
        let failure = load(&handle, config.as_object().unwrap()).await.unwrap_err();
        assert_eq!(failure, Failure::new(Errno::EINVAL, "error updating picky: not that"));
        assert!(!instance.broker.connector_status().access().allow_guest_user);
        assert!(instance.broker.config().object().is_empty());
        let config = json!({"access": {"allow-guest-user": true}, "other": {"key": [1, 2]}});
        load(&handle, config.as_object().unwrap()).await.unwrap();
        assert!(instance.broker.connector_status().access().allow_guest_user);
        instance.stop().await;
    });
}

#[test]
fn a_likely_slip_in_a_table_that_lets_unknown_keys_pass_is_logged() {
    run(async {
        let instance = start().await;
        let mut lines = instance.broker.log().subscribe();
        let handle = Handle::new(instance.broker.router().clone());
        put(&instance, "[tbon]\ntcp_user_timout = \"2m\"\n");
        handle.rpc::<rpc::Reload>(&Empty).await.unwrap();
        let expected = "x.toml:1: error parsing [tbon] config table";
        let line = async {
            loop {
                let line = lines.recv().await.unwrap().line();
                if line.contains("tcp_user_timeout") {
                    return line;
                }
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(20), line).await.unwrap();
        assert!(line.starts_with("config.warning[0]: "), "{line}");
        assert!(line.contains(expected) || line.contains("x.toml:2: "), "{line}");
        instance.stop().await;
    });
}

async fn start() -> Instance {
    let instance = Instance::start().with_module::<ConnectorLocal>().await;
    instance.with::<BrokerService>().await.with_module::<ConfigService>().await
}

async fn load(handle: &Handle, object: &Object) -> Result<Empty, Failure> {
    handle.rpc::<rpc::Load>(object).await
}

fn put(instance: &Instance, text: &str) {
    let path = instance.socket().with_file_name("x.toml");
    std::fs::write(&path, text).unwrap();
    instance.broker.attrs().put("config.path", path.to_string_lossy(), Access::Immutable);
}

/// Refuses a configuration with its own table.
struct Picky;

impl Service for Picky {
    const NAME: &'static str = "picky";
    const SERVICES: &'static [&'static str] = &["picky"];

    async fn start(_: &Context<Picky>, _: &[String]) -> Result<Picky, Failure> {
        Ok(Picky)
    }

    fn methods() -> Methods<Picky> {
        Methods::default()
    }

    fn configure(&mut self, _: &Context<Picky>, config: &Config) -> Result<(), Failure> {
        match config.get("picky") {
            Some(_) => Err(Failure::new(Errno::EINVAL, "not that")),
            None => Ok(()),
        }
    }
}
