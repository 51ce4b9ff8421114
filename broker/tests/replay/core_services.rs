//! Small services: `broker`, `heartbeat`, `connector-local`, `runat`, `heaptrace`.

use std::time::Duration;

use flux_broker::attrs::Access;
use flux_broker::services::attr::Attr;
use flux_broker::services::broker::BrokerService;
use flux_broker::services::connector_local::ConnectorLocal;
use flux_broker::services::heaptrace::Heaptrace;
use flux_broker::services::heartbeat::Heartbeat;
use flux_broker::services::runat::Runat;
use flux_protocol::message::{Matchtag, Message, Nodeid, text_payload};
use flux_protocol::payload::text;
use flux_replay::{Connection, Replay, Rules, Vector};

use crate::instance::{Instance, run};

const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn small_services_answer_probes_as_captured() {
    run(async {
        let instance = Instance::start().with::<BrokerService>().await;
        let instance = instance.with::<ConnectorLocal>().await;
        let instance = instance.with::<Heartbeat>().await;
        let instance = instance.with::<Runat>().await;
        let instance = instance.with::<Heaptrace>().await;
        let services = ["broker", "connector-local", "heartbeat", "runat", "heaptrace"];
        instance.sweep(|topic| services.contains(&topic.split('.').next().unwrap())).await;
        instance.stop().await;
    });
}

#[test]
fn pings_are_answered_as_captured() {
    run(async {
        let instance = Instance::start().with::<Attr>().await.with::<BrokerService>().await;
        let vector = Vector::load("ping").unwrap();
        let socket = instance.socket();
        instance.broker.attrs().put("hostlist", "vm,vm,vm,vm", Access::Immutable);
        let rules = Rules::default().any("rank").any("rolemask");
        Replay::new(&vector, rules.at_rank(0), &socket)
            .ignore(|_, message| {
                let elsewhere = ["kvs", "job-info", "resource"];
                elsewhere.contains(&message.topic.service())
            })
            .play()
            .await
            .assert_equal();
        instance.stop().await;
    });
}

#[test]
fn the_pulse_comes_at_the_modules_period_and_counts() {
    run(async {
        let instance = Instance::start().with_args::<Heartbeat>(&["period=20ms"]).await;
        let mut connection = instance.connect().await;
        let payload = r#"{"topic":"heartbeat.pulse"}"#;
        ask(&mut connection, "event.subscribe", payload).await;
        for _ in 0..3 {
            let pulse = connection.next(TIMEOUT, |m| *m.topic == *"heartbeat.pulse").await;
            assert_eq!(pulse.unwrap().unwrap().payload, None);
        }
        let stats = ask(&mut connection, "heartbeat.stats-get", "{}").await;
        assert!(stats.contains("\"period\":0.02,\"timeout\":300.0,"), "{stats}");
        let refused = ask(
            &mut connection,
            "heartbeat.config-reload",
            r#"{"heartbeat":{"period":"2s","timeout":"3s"}}"#,
        )
        .await;
        assert!(refused.contains("heartbeat.timeout must be >= 2*heartbeat.period"), "{refused}");
        instance.stop().await;
    });
}

#[test]
fn environment_and_paths_are_served() {
    run(async {
        let instance = Instance::start().with::<BrokerService>().await;
        let mut connection = instance.connect().await;
        ask(&mut connection, "broker.setenv", r#"{"env":{"FLUX_T_A":"1","HOME":null}}"#).await;
        let env = ask(
            &mut connection,
            "broker.getenv",
            r#"{"names":["FLUX_T_A","HOME","FLUX_T_UNSET"]}"#,
        )
        .await;
        assert_eq!(env, r#"{"env":{"FLUX_T_A":"1"}}"#);
        for bad in ["BAD=NAME", "", "X\\u0000Y"] {
            let request = format!(r#"{{"env":{{"FLUX_T_A":"2","{bad}":"1"}}}}"#);
            let refused = ask(&mut connection, "broker.setenv", &request).await;
            assert!(refused.ends_with("can't be set in an environment"), "{refused}");
        }
        let env = ask(&mut connection, "broker.getenv", r#"{"names":["FLUX_T_A"]}"#).await;
        assert_eq!(env, r#"{"env":{"FLUX_T_A":"1"}}"#);
        let values = ask(&mut connection, "broker.conf-builtin", r#"{"keys":["rundir"]}"#).await;
        assert_eq!(values, r#"{"values":{"rundir":"/run/flux"}}"#);
        let bad = ask(&mut connection, "broker.conf-builtin", r#"{"keys":["nope"]}"#).await;
        assert_eq!(bad, "nope: invalid key");
        instance.stop().await;
    });
}

#[test]
fn guests_are_admitted_when_the_configuration_changes() {
    run(async {
        let instance = Instance::start().with::<ConnectorLocal>().await;
        let mut connection = instance.connect().await;
        let topic = "connector-local.config-reload";
        ask(&mut connection, topic, r#"{"access":{"allow-guest-user":true}}"#).await;
        let stats = ask(&mut connection, "connector-local.stats-get", "{}").await;
        assert!(stats.ends_with(r#""allow_guest_user":true,"allow_root_owner":false}"#), "{stats}");
        assert!(instance.broker.connector_status().access().allow_guest_user);
        let bad = ask(&mut connection, topic, r#"{"access":{"allow-guest-user":"zz"}}"#).await;
        assert!(bad.ends_with("allow-guest-user: expected boolean, got string"), "{bad}");
        assert!(instance.broker.connector_status().access().allow_guest_user);
        instance.stop().await;
    });
}

/// The answer's payload, whether an error or not.
async fn ask(connection: &mut Connection, topic: &str, payload: &str) -> String {
    let request =
        Message::request(topic, Nodeid::ANY, Matchtag(7)).with_payload(Some(text_payload(payload)));
    connection.send(&request).await.unwrap();
    let answer = connection.next(TIMEOUT, |message| message.matchtag() == Matchtag(7)).await;
    let payload = answer.unwrap().unwrap().payload;
    payload.map(|payload| text(Some(&payload)).unwrap().to_owned()).unwrap_or_default()
}
