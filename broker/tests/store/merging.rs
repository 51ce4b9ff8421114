//! Transactions that come together.

use flux_broker::services::content::Content;
use flux_broker::services::kvs::Kvs;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::rpc::kvs::{self, commit};
use proptest::prelude::*;

use crate::instance::{Instance, append, put, run, unlink};

/// All at once; the answers are in the order of the transactions.
async fn commit_all(
    instance: &Instance,
    transactions: &[(u32, Vec<kvs::Op>)],
) -> Vec<Result<kvs::Rootref, Failure>> {
    let send = |(flags, ops): &(u32, Vec<kvs::Op>)| {
        let namespace = kvs::PRIMARY.to_owned();
        let request = kvs::CommitRequest { namespace, flags: *flags, ops: ops.clone() };
        instance.handle.send::<kvs::Commit>(Nodeid::ANY, Flags::default(), &request).unwrap()
    };
    let sent: Vec<_> = transactions.iter().map(send).collect();
    let mut answers = Vec::new();
    for mut response in sent {
        answers.push(response.next().await);
    }
    answers
}

async fn memory_only(args: &[&str]) -> Instance {
    let dir = tempfile::tempdir().unwrap();
    let mut instance = Instance::bare(dir.path(), &[]);
    instance.load::<Content>(&[]).await.unwrap();
    instance.load::<Kvs>(args).await.unwrap();
    instance
}

#[test]
fn transactions_that_come_together_become_one_root() {
    run(async {
        let instance = memory_only(&[]).await;
        let transactions: Vec<_> =
            (0..100).map(|n| (0, vec![put(&format!("k{n}"), b"1")])).collect();
        let answers = commit_all(&instance, &transactions).await;
        let first = answers[0].as_ref().unwrap();
        assert_eq!(first.rootseq, 1);
        assert!(answers.iter().all(|a| a.as_ref().unwrap().rootref == first.rootref));
        instance.stop().await;
    });
}

#[test]
fn those_that_must_not_be_merged_keep_their_place() {
    run(async {
        let instance = memory_only(&[]).await;
        let transactions = vec![
            (0, vec![put("a", b"1")]),
            (0, vec![append("log", b"1")]),
            (commit::NO_MERGE, vec![append("log", b"2")]),
            (0, vec![append("log", b"3")]),
        ];
        let answers = commit_all(&instance, &transactions).await;
        let seqs: Vec<i64> = answers.iter().map(|a| a.as_ref().unwrap().rootseq).collect();
        assert_eq!(seqs, [1, 1, 2, 3]);
        assert_eq!(instance.get("log").await.unwrap(), b"123");
        instance.stop().await;
    });
}

#[test]
fn one_that_nobody_waits_for_joins_the_next() {
    run(async {
        let instance = memory_only(&[]).await;
        let alone = instance.commit(commit::LAZY, vec![append("log", b"0")]).await.unwrap();
        assert_eq!(alone.rootseq, 1);
        for n in 1..=50_u8 {
            let lazy = [(commit::LAZY, vec![append("log", &[n])])];
            let lazy = commit_all(&instance, &lazy);
            let eager = async {
                // Several turns of the service, in which it could have begun.
                instance.get("log").await.unwrap();
                instance.commit(0, vec![append("log", &[n])]).await.unwrap()
            };
            let (lazy, eager) = tokio::join!(biased; lazy, eager);
            assert!(lazy[0].as_ref().unwrap().rootseq <= eager.rootseq);
        }
        // A machine that is slow enough lets some have their own.
        let last = instance.commit(0, vec![put("end", b"")]).await.unwrap().rootseq;
        assert!(last < 102, "{last} roots, as if all had begun at once");
        let expected: Vec<u8> = b"0".iter().copied().chain((1..=50).flat_map(|n| [n, n])).collect();
        assert_eq!(instance.get("log").await.unwrap(), expected);
        instance.stop().await;
    });
}

#[test]
fn one_bad_transaction_fails_alone_and_leaves_nothing() {
    run(async {
        let instance = memory_only(&[]).await;
        instance.commit(0, vec![put("dir.x", b"1")]).await.unwrap();
        let transactions = vec![
            (0, vec![put("a", b"1"), append("log", b"a")]),
            (0, vec![put("half", b"1"), append("dir", b"2")]),
            (0, vec![put("b", b"1"), append("log", b"b")]),
        ];
        let answers = commit_all(&instance, &transactions).await;
        assert!(answers[0].is_ok() && answers[2].is_ok());
        assert_eq!(answers[1].as_ref().unwrap_err().errno, Errno::EISDIR);
        assert_eq!(instance.get("log").await.unwrap(), b"ab");
        assert_eq!(instance.names(".").await, ["a", "b", "dir", "log"]);
        instance.stop().await;
    });
}

fn transaction() -> impl Strategy<Value = (u32, Vec<kvs::Op>)> {
    let op = ("[ab](\\.[ab]){0,2}", 0..4u8, prop::collection::vec(any::<u8>(), 0..90)).prop_map(
        |(key, kind, data)| match kind {
            0 => unlink(&key),
            1 | 2 => append(&key, &data),
            _ => put(&key, &data),
        },
    );
    let flags = prop_oneof![4 => Just(0), 1 => Just(commit::NO_MERGE), 2 => Just(commit::LAZY)];
    (flags, prop::collection::vec(op, 1..4))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn merging_changes_nothing_but_the_number_of_roots(
        transactions in prop::collection::vec(transaction(), 1..20)
    ) {
        run(async {
            let (merged, single) = (memory_only(&[]).await, memory_only(&[]).await);
            let answers = commit_all(&merged, &transactions).await;
            for ((flags, ops), answer) in transactions.iter().zip(answers) {
                let alone = single.commit(*flags, ops.clone()).await;
                assert_eq!(alone.map(|_| ()).map_err(|f| f.errno),
                    answer.map(|_| ()).map_err(|f| f.errno));
            }
            let root = |instance: &Instance| {
                let handle = instance.handle.clone();
                async move {
                    let namespace = kvs::PRIMARY.to_owned();
                    let request = kvs::GetrootRequest { namespace, flags: None };
                    handle.rpc::<kvs::Getroot>(&request).await.unwrap().rootref
                }
            };
            assert_eq!(root(&merged).await, root(&single).await);
            merged.stop().await;
            single.stop().await;
        });
    }
}
