//! Every request of every service, from a guest: against the table of who may send what.

use flux_guests::ALICE;
use serde_json::{Value, json};

use super::host::{Instance, ask};

const OWNER_ONLY: &str = "Request requires owner credentials";

/// Not to be sent with an empty payload by a test: they wait.
const WAIT: [&str; 2] = ["state-machine.wait", "job-exec.shell-barrier"];

fn table() -> Vec<Value> {
    let text = include_str!("../../../vectors/services.json");
    serde_json::from_str::<Value>(text).unwrap()["services"].as_array().unwrap().clone()
}

pub(super) fn guests_are_refused_what_is_the_owners_and_nothing_else(instance: &Instance) {
    let (refused, other) = instance.with_client(ALICE, async |client| {
        let (mut refused, mut other) = (Vec::new(), Vec::new());
        for row in table() {
            let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let (topic, who, reply) = (word("topic"), word("who"), word("reply"));
            let plain = topic.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'.');
            // Those without an answer have nothing to be judged by.
            if !plain || !reply.starts_with(['1', 'S', 'm']) || WAIT.contains(&&*topic) {
                continue;
            }
            let answer = ask(&client, &topic, &json!({})).await;
            match who.chars().next() {
                _ if who == "O here" => {}
                Some('O' | 'I') => refused.push((topic, answer)),
                _ => other.push((topic, answer)),
            }
        }
        (refused, other)
    });
    let (mut count, mut wrong) = (0, Vec::new());
    for (topic, answer) in refused {
        match answer {
            Err((1, _)) => count += 1,
            // A service or a method that this broker does not have.
            Err((38, text)) => println!("{topic}: {text}"),
            other => wrong.push(format!("{topic} is the owner's alone, but answers {other:?}")),
        }
    }
    assert!(count >= 70, "only {count} were refused");
    for (topic, answer) in other {
        if answer.is_err_and(|(errno, text)| errno == 1 && text == OWNER_ONLY) {
            wrong.push(format!("{topic} is open to guests"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
