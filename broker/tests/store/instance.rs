//! A broker in this process whose services are reached by messages alone.

use std::future::Future;
use std::path::Path;
use std::rc::Rc;

use flux_broker::attrs::{Access, Attrs};
use flux_broker::broker::Broker;
use flux_broker::config::Config;
use flux_broker::handle::Handle;
use flux_broker::loaded::Loaded;
use flux_broker::service::{Service, load};
use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_broker::services::kvs::Kvs;
use flux_broker::services::kvs_watch::KvsWatch;
use flux_protocol::credential::Userid;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::kvs::{self, commit, lookup};
use flux_protocol::treeobj::Treeobj;

pub(crate) struct Instance {
    pub(crate) broker: Rc<Broker>,
    pub(crate) handle: Handle,
    loaded: Vec<Loaded>,
}

impl Instance {
    /// Content, its backing store in `statedir`, KVS and watches.
    pub(crate) async fn start(statedir: &Path) -> Instance {
        Instance::bare(statedir, &[]).all(&[]).await.unwrap()
    }

    /// A broker without services.
    pub(crate) fn bare(statedir: &Path, attrs: &[(&str, &str)]) -> Instance {
        Instance::with_config(statedir, attrs, Config::default())
    }

    pub(crate) fn with_config(statedir: &Path, more: &[(&str, &str)], config: Config) -> Instance {
        let attrs = Attrs::default();
        attrs.put("statedir", statedir.to_str().unwrap(), Access::Immutable);
        attrs.put("log-stderr-level", "-1", Access::Runtime);
        for (name, value) in more {
            attrs.put(name, *value, Access::Immutable);
        }
        Instance::of(Broker::new(0, 1, Userid(100), attrs, config))
    }

    pub(crate) fn of(broker: Rc<Broker>) -> Instance {
        let handle = Handle::new(broker.router().clone());
        Instance { broker, handle, loaded: Vec::new() }
    }

    /// Load all four services, the backing store with arguments.
    pub(crate) async fn all(mut self, sqlite: &[&str]) -> Result<Instance, Failure> {
        self.load::<Content>(&[]).await?;
        self.load::<ContentSqlite>(sqlite).await?;
        self.load::<Kvs>(&[]).await?;
        self.load::<KvsWatch>(&[]).await?;
        Ok(self)
    }

    pub(crate) async fn load<S: Service>(&mut self, args: &[&str]) -> Result<(), Failure> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.loaded.push(load::<S>(&self.broker, None, &args).await?);
        Ok(())
    }

    pub(crate) async fn unload_last(&mut self) {
        self.loaded.pop().unwrap().stop().await;
    }

    pub(crate) async fn stop(mut self) {
        while let Some(loaded) = self.loaded.pop() {
            loaded.stop().await;
        }
        self.handle.close();
    }

    pub(crate) async fn commit(
        &self,
        flags: u32,
        ops: Vec<kvs::Op>,
    ) -> Result<kvs::Rootref, Failure> {
        let request = kvs::CommitRequest { namespace: kvs::PRIMARY.to_owned(), flags, ops };
        self.handle.rpc::<kvs::Commit>(&request).await
    }

    pub(crate) async fn put(&self, key: &str, data: &[u8]) -> kvs::Rootref {
        self.commit(0, vec![put(key, data)]).await.unwrap()
    }

    pub(crate) async fn put_synced(&self, key: &str, data: &[u8]) -> Result<kvs::Rootref, Failure> {
        self.commit(commit::SYNC, vec![put(key, data)]).await
    }

    /// The value of a key, or the errno.
    pub(crate) async fn get(&self, key: &str) -> Result<Vec<u8>, Failure> {
        match self.look_up(key, 0).await? {
            Treeobj::Val(data) => Ok(data.decode().unwrap()),
            other => panic!("{key} is a {}", other.type_name()),
        }
    }

    pub(crate) async fn look_up(&self, key: &str, flags: u32) -> Result<Treeobj, Failure> {
        let request = kvs::LookupRequest {
            key: key.to_owned(),
            namespace: Some(kvs::PRIMARY.to_owned()),
            flags,
            rootdir: None,
            rootseq: None,
        };
        Ok(self.handle.rpc::<kvs::Lookup>(&request).await?.val)
    }

    pub(crate) async fn names(&self, key: &str) -> Vec<String> {
        match self.look_up(key, lookup::READDIR).await.unwrap() {
            Treeobj::Dir(entries) => entries.into_keys().collect(),
            other => panic!("{key} is a {}", other.type_name()),
        }
    }
}

pub(crate) fn put(key: &str, data: &[u8]) -> kvs::Op {
    kvs::Op { key: key.to_owned(), flags: 0, dirent: Some(Treeobj::val(data)) }
}

pub(crate) fn append(key: &str, data: &[u8]) -> kvs::Op {
    kvs::Op { flags: kvs::OP_APPEND, ..put(key, data) }
}

pub(crate) fn unlink(key: &str) -> kvs::Op {
    kvs::Op { key: key.to_owned(), flags: 0, dirent: None }
}

/// Run a test on the one thread that a broker runs on.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
