//! Two brokers, linked without a network.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use flux_broker::attrs::Attrs;
use flux_broker::broker::Broker;
use flux_broker::config::Config;
use flux_broker::router::{Hop, Overlay, Router};
use flux_broker::services::content::Content;
use flux_broker::services::kvs::Kvs;
use flux_broker::services::kvs_watch::KvsWatch;
use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Kind, Message, Nodeid};
use flux_protocol::payload::{Empty, Raw};
use flux_protocol::rpc::kvs::lookup::{WAITCREATE, WATCH};
use flux_protocol::rpc::kvs::{self, commit};
use flux_protocol::rpc::{content, kvs_watch};
use flux_protocol::treeobj::Treeobj;

use crate::instance::{Instance, append, put, run};

/// One end of the link. Messages arrive in a later turn, in order.
struct Link {
    rank: u32,
    here: Router,
    other: RefCell<Weak<Link>>,
}

impl Link {
    fn join(upper: &Router, lower: &Router) {
        let link = |rank, here: &Router| {
            Rc::new(Link { rank, here: here.clone(), other: RefCell::default() })
        };
        let (up, down) = (link(0, upper), link(1, lower));
        *up.other.borrow_mut() = Rc::downgrade(&down);
        *down.other.borrow_mut() = Rc::downgrade(&up);
        upper.set_overlay(up);
        lower.set_overlay(down);
    }

    fn other(&self) -> Result<Router, Failure> {
        let other = self.other.borrow().upgrade().ok_or(Errno::EHOSTUNREACH)?;
        Ok(other.here.clone())
    }

    fn send(&self, mut message: Message) -> Result<(), Failure> {
        let other = self.other()?;
        let (up, uuid) = (self.rank == 1, self.here.uuid().clone());
        tokio::task::spawn_local(async move {
            match message.kind {
                Kind::Request { .. } => {
                    if up {
                        message.routes.push(uuid);
                    }
                    other.request(message);
                }
                Kind::Event { .. } if up => drop(other.publish(message)),
                Kind::Event { .. } => other.distribute(&message),
                _ => other.response(message),
            }
        });
        Ok(())
    }
}

impl Overlay for Link {
    fn hop(&self, rank: u32) -> Result<Hop, Failure> {
        match (self.rank, rank) {
            (here, there) if here == there => Ok(Hop::Here),
            (0, 1) => Ok(Hop::Child(1)),
            (1, 0) => Ok(Hop::Parent),
            _ => Err(Errno::EHOSTUNREACH.into()),
        }
    }

    fn parent_uuid(&self) -> Option<Bytes> {
        (self.rank == 1).then(|| self.other().ok().map(|other| other.uuid().clone())).flatten()
    }

    fn child_with_uuid(&self, uuid: &Bytes) -> Option<u32> {
        (self.rank == 0 && self.other().ok()?.uuid() == uuid).then_some(1)
    }

    fn send_parent(&self, message: Message) -> Result<(), Failure> {
        self.send(message)
    }

    fn send_child(&self, _: u32, message: Message) -> Result<(), Failure> {
        self.send(message)
    }

    fn multicast(&self, event: &Message) {
        if self.rank == 0 {
            self.send(event.clone()).unwrap();
        }
    }
}

async fn pair(statedir: &std::path::Path) -> [Instance; 2] {
    let upper = Instance::start(statedir).await;
    let attrs = Attrs::default();
    attrs.put("log-stderr-level", "-1", flux_broker::attrs::Access::Runtime);
    let broker = Broker::new(1, 2, Userid(100), attrs, Config::default());
    Link::join(upper.broker.router(), broker.router());
    let mut lower = Instance::of(broker);
    lower.load::<Content>(&[]).await.unwrap();
    lower.load::<Kvs>(&[]).await.unwrap();
    lower.load::<KvsWatch>(&[]).await.unwrap();
    [upper, lower]
}

#[test]
fn a_commit_on_another_rank_is_applied_on_rank_0_and_read_everywhere() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = pair(dir.path()).await;
        let first = lower.put("a.b", b"1").await;
        assert_eq!(lower.get("a.b").await.unwrap(), b"1");
        assert_eq!(upper.get("a.b").await.unwrap(), b"1");
        // Read your writes, in either direction.
        let second = upper.put("a.c", &[7; 1000]).await;
        assert_eq!(second.rootseq, first.rootseq + 1);
        let wait =
            kvs::WaitVersionRequest { namespace: kvs::PRIMARY.into(), rootseq: second.rootseq };
        lower.handle.rpc::<kvs::WaitVersion>(&wait).await.unwrap();
        assert_eq!(lower.get("a.c").await.unwrap(), [7; 1000]);
        let synced = lower.put_synced("s", b"1").await.unwrap();
        assert!(synced.rootseq > second.rootseq);
        lower.stop().await;
        upper.stop().await;
    });
}

#[test]
fn a_failed_commit_on_another_rank_says_why() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = pair(dir.path()).await;
        lower.put("dir.x", b"1").await;
        let failure = lower.commit(0, vec![append("dir", b"1")]).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EISDIR);
        let request = kvs::CommitRequest {
            namespace: "none".into(),
            flags: commit::NO_MERGE,
            ops: vec![put("a", b"1")],
        };
        let failure = lower.handle.rpc::<kvs::Commit>(&request).await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOTSUP);
        lower.stop().await;
        upper.stop().await;
    });
}

#[test]
fn namespaces_and_links_between_them_work_on_other_ranks() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = pair(dir.path()).await;
        let create = kvs::NamespaceCreateRequest {
            namespace: "job".into(),
            rootref: "sha1-c0a9faf907dda6216fd73bf81d0b3b21a1a8cb91".into(),
            owner: 4242,
            flags: 0,
        };
        let at_0 = Nodeid(0);
        lower.handle.rpc_to::<kvs::NamespaceCreate>(at_0, &create).await.unwrap();
        let failure = lower.handle.rpc::<kvs::NamespaceCreate>(&create).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EINVAL);
        let request = kvs::CommitRequest {
            namespace: "job".into(),
            flags: 0,
            ops: vec![put("in.side", b"1")],
        };
        lower.handle.rpc::<kvs::Commit>(&request).await.unwrap();
        let link = Some(Treeobj::symlink(Some("job"), "."));
        let link = kvs::Op { key: "guest".into(), flags: 0, dirent: link };
        lower.commit(0, vec![link]).await.unwrap();
        assert_eq!(upper.get("guest.in.side").await.unwrap(), b"1");
        assert_eq!(lower.get("guest.in.side").await.unwrap(), b"1");

        let wait = kvs::WaitVersionRequest { namespace: "job".into(), rootseq: 99 };
        let flags = flux_protocol::message::Flags::default();
        let mut waiting = lower.handle.send::<kvs::WaitVersion>(Nodeid::ANY, flags, &wait).unwrap();
        let remove = kvs::NamespaceRequest { namespace: "job".into() };
        lower.handle.rpc_to::<kvs::NamespaceRemove>(at_0, &remove).await.unwrap();
        assert_eq!(waiting.next().await.unwrap_err().errno, Errno::ENOTSUP);
        assert_eq!(lower.get("guest.in.side").await.unwrap_err().errno, Errno::ENOTSUP);
        lower.stop().await;
        upper.stop().await;
    });
}

#[test]
fn a_watch_on_another_rank_follows_the_setroot_events() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = pair(dir.path()).await;
        let request = kvs_watch::LookupRequest {
            key: "w".into(),
            namespace: kvs::PRIMARY.into(),
            flags: WATCH | WAITCREATE,
        };
        let mut watch = lower.handle.stream::<kvs_watch::Lookup>(Nodeid::ANY, &request).unwrap();
        for number in 1..=3u8 {
            upper.put("w", &[number]).await;
            assert_eq!(watch.next().await.unwrap().val, Treeobj::val(&[number]));
        }
        lower.stop().await;
        upper.stop().await;
    });
}

#[test]
fn paused_setroot_events_leave_a_rank_behind_until_they_go_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = pair(dir.path()).await;
        upper.put("a", b"1").await;
        assert_eq!(lower.get("a").await.unwrap(), b"1");
        let primary = kvs::NamespaceRequest { namespace: kvs::PRIMARY.into() };
        lower.handle.rpc::<kvs::SetrootPause>(&primary).await.unwrap();
        upper.put("a", b"2").await;
        assert_eq!(lower.get("a").await.unwrap(), b"1");
        lower.handle.rpc::<kvs::SetrootUnpause>(&primary).await.unwrap();
        while lower.get("a").await.unwrap() != b"2" {}
        lower.stop().await;
        upper.stop().await;
    });
}

#[test]
fn content_stored_on_another_rank_is_on_rank_0_when_it_is_answered() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = pair(dir.path()).await;
        let blob = Raw(Bytes::from_static(b"a blob"));
        let digest = lower.handle.rpc::<content::Store>(&blob).await.unwrap();
        lower.handle.rpc::<content::Dropcache>(&Empty).await.unwrap();
        assert_eq!(upper.handle.rpc::<content::Load>(&digest).await.unwrap(), blob);
        assert_eq!(lower.handle.rpc::<content::Load>(&digest).await.unwrap(), blob);
        let missing = Raw(vec![0; 20].into());
        let failure = lower.handle.rpc::<content::Load>(&missing).await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOENT);
        let name = content::BackingRequest { name: "content-sqlite".into() };
        let failure = lower.handle.rpc::<content::RegisterBacking>(&name).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EINVAL);
        lower.stop().await;
        upper.stop().await;
    });
}
