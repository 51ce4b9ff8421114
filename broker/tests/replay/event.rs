//! `event.*` and events.

use flux_broker::context::Context;
use flux_broker::methods::Methods;
use flux_broker::service::Service;
use flux_broker::services::event::Event;
use flux_protocol::failure::Failure;
use flux_replay::{Replay, Rules, Vector};

use crate::instance::{Instance, run};

#[test]
fn events_are_published_and_received_as_captured() {
    run(async {
        let instance = Instance::start().with::<Event>().await;
        let vector = Vector::load("event").unwrap();
        let socket = instance.socket();
        Replay::new(&vector, Rules::default().any("seq"), &socket)
            .skip_run("timeout -s INT 2.6 flux event sub heartbeat", "see the heartbeat test")
            .skip_run("(sleep .5; ", "the publisher is not in the file")
            .play()
            .await
            .assert_equal();
        instance.sweep(|topic| topic.starts_with("event.")).await;
        instance.stop().await;
    });
}

#[test]
fn client_services_are_registered_and_called_as_captured() {
    run(async {
        let instance = Instance::start().with::<Taken>().await;
        let vector = Vector::load("service").unwrap();
        let socket = instance.socket();
        Replay::new(&vector, Rules::default(), &socket).play().await.assert_equal();
        instance.stop().await;
    });
}

/// Takes a name that the captured client tries to register.
struct Taken;

impl Service for Taken {
    const NAME: &'static str = "kvs";
    const SERVICES: &'static [&'static str] = &["kvs"];

    async fn start(_: &Context<Taken>, _: &[String]) -> Result<Taken, Failure> {
        Ok(Taken)
    }

    fn methods() -> Methods<Taken> {
        Methods::default()
    }
}
