//! `kvs-watch`.

use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::rpc::kvs::lookup::{
    FULL, SENTINEL, STREAM, UNIQ, WAITCREATE, WATCH, WATCH_APPEND,
};
use flux_protocol::rpc::{kvs, kvs_watch as rpc};
use flux_protocol::treeobj::Treeobj;

use crate::instance::{Instance, append, put, run, unlink};

type Watch = flux_broker::handle::Responses<rpc::Lookup>;

async fn start() -> (Instance, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Instance::start(dir.path()).await, dir)
}

fn watch(instance: &Instance, key: &str, flags: u32) -> Watch {
    watch_in(instance, kvs::PRIMARY, key, flags)
}

fn watch_in(instance: &Instance, namespace: &str, key: &str, flags: u32) -> Watch {
    let namespace = namespace.to_owned();
    let request = rpc::LookupRequest { key: key.to_owned(), namespace, flags };
    instance.handle.stream::<rpc::Lookup>(Nodeid::ANY, &request).unwrap()
}

async fn value(watch: &mut Watch) -> Result<Vec<u8>, Failure> {
    match watch.next().await?.val {
        Treeobj::Val(data) => Ok(data.decode().unwrap()),
        other => panic!("{}", other.type_name()),
    }
}

async fn errno(watch: &mut Watch) -> Errno {
    watch.next().await.unwrap_err().errno
}

#[test]
fn every_change_of_the_key_is_answered_in_order_and_no_other() {
    run(async {
        let (instance, _dir) = start().await;
        instance.put("a", b"0").await;
        let mut watch = watch(&instance, "a", WATCH);
        assert_eq!(value(&mut watch).await.unwrap(), b"0");
        for number in 1..=20u8 {
            instance.put("b", &[number]).await;
            instance.put("a", &[number]).await;
        }
        for number in 1..=20u8 {
            assert_eq!(value(&mut watch).await.unwrap(), [number]);
        }
        instance.commit(0, vec![unlink("a")]).await.unwrap();
        assert_eq!(errno(&mut watch).await, Errno::ENOENT);
        instance.stop().await;
    });
}

#[test]
fn an_appended_log_is_answered_piece_by_piece() {
    run(async {
        let (instance, _dir) = start().await;
        let flags = WATCH | WATCH_APPEND | WAITCREATE | SENTINEL;
        let mut early = watch(&instance, "log", flags);
        // There is nothing yet, which the sentinel says.
        assert_eq!(early.next_raw().await.unwrap(), None);
        for piece in [b"1\n", b"2\n", b"3\n"] {
            instance.commit(0, vec![append("log", piece)]).await.unwrap();
        }
        let mut late = watch(&instance, ".log.", flags);
        for piece in [b"1\n", b"2\n", b"3\n"] {
            assert_eq!(value(&mut early).await.unwrap(), piece);
            assert_eq!(value(&mut late).await.unwrap(), piece);
        }
        assert_eq!(late.next_raw().await.unwrap(), None);
        instance.commit(0, vec![append("log", b"4\n"), append("log", b"5\n")]).await.unwrap();
        for watch in [&mut early, &mut late] {
            assert_eq!(value(watch).await.unwrap(), b"4\n");
            assert_eq!(value(watch).await.unwrap(), b"5\n");
        }
        instance.put("log", b"new").await;
        let failure = early.next().await.unwrap_err();
        assert_eq!(failure.errno, Errno::EINVAL);
        assert_eq!(failure.to_string(), "value of key watched with WATCH_APPEND overwritten");
        instance.stop().await;
    });
}

#[test]
fn a_stream_ends_after_the_last_piece() {
    run(async {
        let (instance, _dir) = start().await;
        for piece in [b"1", b"2"] {
            instance.commit(0, vec![append("log", piece)]).await.unwrap();
        }
        let mut stream = watch(&instance, "log", STREAM);
        assert_eq!(value(&mut stream).await.unwrap(), b"1");
        assert_eq!(value(&mut stream).await.unwrap(), b"2");
        assert_eq!(errno(&mut stream).await, Errno::ENODATA);
        instance.put("dir.x", b"").await;
        let mut dir = watch(&instance, "dir", STREAM);
        let failure = dir.next().await.unwrap_err();
        assert_eq!(failure, Failure::new(Errno::EISDIR, "dirref cannot be streamed"));
        instance.stop().await;
    });
}

#[test]
fn unique_and_full_watches_answer_other_values_only() {
    run(async {
        let (instance, _dir) = start().await;
        instance.put("real.x", b"1").await;
        let link =
            kvs::Op { key: "link".into(), flags: 0, dirent: Some(Treeobj::symlink(None, "real")) };
        instance.commit(0, vec![link]).await.unwrap();
        let mut unique = watch(&instance, "real.x", WATCH | UNIQ);
        let mut full = watch(&instance, "link.x", WATCH | FULL);
        assert_eq!(value(&mut unique).await.unwrap(), b"1");
        assert_eq!(value(&mut full).await.unwrap(), b"1");
        for data in [b"1", b"2", b"2", b"3"] {
            instance.put("real.x", data).await;
        }
        for data in [b"2", b"3"] {
            assert_eq!(value(&mut unique).await.unwrap(), data);
            assert_eq!(value(&mut full).await.unwrap(), data);
        }
        instance.stop().await;
    });
}

#[test]
fn who_waits_for_a_namespace_is_answered_when_it_comes_and_when_it_goes() {
    run(async {
        let (instance, _dir) = start().await;
        let mut absent = watch_in(&instance, "ns", "a", WATCH);
        assert_eq!(errno(&mut absent).await, Errno::ENOTSUP);
        let mut waiting = watch_in(&instance, "ns", "a", WATCH | WAITCREATE);
        let mut impatient = watch_in(&instance, "ns", "a", WATCH);
        assert_eq!(errno(&mut impatient).await, Errno::ENOTSUP);
        let create = kvs::NamespaceCreateRequest {
            namespace: "ns".into(),
            rootref: "sha1-c0a9faf907dda6216fd73bf81d0b3b21a1a8cb91".into(),
            owner: -1,
            flags: 0,
        };
        instance.handle.rpc::<kvs::NamespaceCreate>(&create).await.unwrap();
        let request =
            kvs::CommitRequest { namespace: "ns".into(), flags: 0, ops: vec![put("a", b"1")] };
        instance.handle.rpc::<kvs::Commit>(&request).await.unwrap();
        assert_eq!(value(&mut waiting).await.unwrap(), b"1");
        let remove = kvs::NamespaceRequest { namespace: "ns".into() };
        instance.handle.rpc::<kvs::NamespaceRemove>(&remove).await.unwrap();
        assert_eq!(errno(&mut waiting).await, Errno::ENOTSUP);
        instance.stop().await;
    });
}

#[test]
fn a_cancelled_watch_ends_at_once_and_a_strangers_cancel_does_nothing() {
    run(async {
        let (instance, _dir) = start().await;
        instance.put("a", b"1").await;
        let mut watch = watch(&instance, "a", WATCH);
        assert_eq!(value(&mut watch).await.unwrap(), b"1");
        let cancel = rpc::CancelRequest { matchtag: watch.matchtag().0 };
        let stranger = flux_broker::handle::Handle::new(instance.broker.router().clone());
        stranger.notify::<rpc::Cancel>(Nodeid::ANY, Flags::default(), &cancel).unwrap();
        instance.put("a", b"2").await;
        assert_eq!(value(&mut watch).await.unwrap(), b"2");
        instance.handle.notify::<rpc::Cancel>(Nodeid::ANY, Flags::default(), &cancel).unwrap();
        assert_eq!(errno(&mut watch).await, Errno::ENODATA);
        stranger.close();
        instance.stop().await;
    });
}

#[test]
fn a_guest_watches_in_its_own_namespace_alone() {
    run(async {
        let (instance, _dir) = start().await;
        let guest = Credential { userid: Userid(4242), rolemask: Rolemask::USER };
        let create = kvs::NamespaceCreateRequest {
            namespace: "job-1".into(),
            rootref: "sha1-c0a9faf907dda6216fd73bf81d0b3b21a1a8cb91".into(),
            owner: 4242,
            flags: 0,
        };
        instance.handle.rpc::<kvs::NamespaceCreate>(&create).await.unwrap();
        let commit =
            kvs::CommitRequest { namespace: "job-1".into(), flags: 0, ops: vec![put("a", b"1")] };
        instance.handle.rpc_as::<kvs::Commit>(guest, &commit).await.unwrap();
        let ask = |namespace: &str| rpc::LookupRequest {
            key: "a".into(),
            namespace: namespace.into(),
            flags: WAITCREATE,
        };
        let own = instance.handle.rpc_as::<rpc::Lookup>(guest, &ask("job-1")).await.unwrap();
        assert_eq!(own.val, Treeobj::val(b"1"));
        let other = instance.handle.rpc_as::<rpc::Lookup>(guest, &ask("primary")).await;
        assert_eq!(other.unwrap_err().errno, Errno::EPERM);
        let valref = kvs::Op {
            key: "stolen".into(),
            flags: 0,
            dirent: "sha1-c0a9faf907dda6216fd73bf81d0b3b21a1a8cb91"
                .parse()
                .ok()
                .map(Treeobj::valref),
        };
        let steal = kvs::CommitRequest { ops: vec![valref], ..commit };
        let failure = instance.handle.rpc_as::<kvs::Commit>(guest, &steal).await.unwrap_err();
        assert_eq!(failure, Failure::new(Errno::EPERM, "guests may not commit valref objects"));
        instance.stop().await;
    });
}
