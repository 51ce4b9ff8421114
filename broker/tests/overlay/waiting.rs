//! A broker that waits for its parent's configuration before it goes on.

use flux_broker::call::Call;
use flux_broker::context::Context;
use flux_broker::life::Life;
use flux_broker::log::Severity;
use flux_broker::methods::Methods;
use flux_broker::service::Service;
use flux_broker::services::config::ConfigService;
use flux_broker::services::state_machine::StateMachine;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::config as rpc;

use crate::tree::{Node, Site, run};

/// The parent's service: answers when it has been asked so many times.
struct Slow {
    patience: usize,
    calls: Vec<Call<Object>>,
}

impl Service for Slow {
    const NAME: &'static str = "config";
    const SERVICES: &'static [&'static str] = &["config"];

    async fn start(_: &Context<Slow>, args: &[String]) -> Result<Slow, Failure> {
        Ok(Slow { patience: args.first().unwrap().parse().unwrap(), calls: Vec::new() })
    }

    fn methods() -> Methods<Slow> {
        Methods::default().serve::<rpc::Get>(Slow::get)
    }
}

impl Slow {
    fn get(&mut self, context: &Context<Slow>, _: Empty, call: Call<Object>) {
        self.calls.push(call);
        let count = self.calls.len();
        context.log(Severity::Info, format!("asked {count}"));
        if count == self.patience {
            self.calls.iter().for_each(|call| call.send(context.config().object()));
        }
    }
}

/// Rank 0 runs, and rank 1 has come in.
async fn pair(period: &str, patience: &str) -> (Node, Node) {
    let mut site = Site::new(2, "kary:2");
    for (name, value) in [
        ("broker.rc1_path", ""),
        ("broker.rc3_path", ""),
        ("broker.quorum", "1"),
        ("broker.quorum-warn", period),
    ] {
        site.set(name, value);
    }
    let mut nodes = site.start_all().await;
    let (mut follower, mut leader) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    for node in [&leader, &follower] {
        let life = Life::new(node.broker.attrs(), node.overlay.clone(), None).unwrap();
        node.broker.set_life(life);
    }
    leader.load::<Slow>(&[patience]).await;
    leader.load::<StateMachine>(&[]).await;
    leader.until_logged("quorum->run").await;
    follower.load::<ConfigService>(&[]).await;
    follower.load::<StateMachine>(&[]).await;
    follower.until_logged("none->join").await;
    (leader, follower)
}

#[test]
fn a_parent_that_does_not_answer_is_asked_again() {
    run(async {
        let (leader, follower) = pair("50ms", "3").await;
        follower.until_logged("join->init").await;
        assert!(leader.has_logged("asked 3") && !leader.has_logged("asked 4"));
        let asked = "the parent does not tell its configuration: it is asked again";
        assert_eq!(follower.log().iter().filter(|line| line.contains(asked)).count(), 2);
    });
}

#[test]
fn the_loss_of_a_parent_that_has_not_answered_ends_the_wait() {
    run(async {
        let (leader, follower) = pair("none", "2").await;
        leader.until_logged("asked 1").await;
        assert!(!follower.has_logged("join->init"));
        leader.kill();
        follower.until_logged("parent lost: ").await;
        follower.until_logged("goodbye->exit").await;
        assert!(!follower.has_logged("join->init"));
    });
}
