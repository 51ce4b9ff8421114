//! The services that are loaded and unloaded by name, in flux-core's names for its modules.

use std::cell::RefCell;
use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

use crate::broker::Broker;
use crate::dump::{self, Restore};
use crate::log::Severity;
use crate::peers::LocalFuture;
use crate::service::{self, Loaded, Service, Status};
use crate::services::content::Content;
use crate::services::content_sqlite::ContentSqlite;
use crate::services::cron::Cron;
use crate::services::heartbeat::Heartbeat;
use crate::services::job_exec::JobExec;
use crate::services::job_info::JobInfo;
use crate::services::job_ingest::JobIngest;
use crate::services::job_list::JobList;
use crate::services::job_manager::JobManager;
use crate::services::kvs::Kvs;
use crate::services::kvs_watch::KvsWatch;
use crate::services::resource::Resource;
use crate::services::sched::Sched;

/// A module that can be loaded.
pub struct Module {
    pub name: &'static str,
    /// Where rc1 loads it.
    pub on: On,
    /// What rc1 loads it with.
    args: &'static [&'static str],
    start: Start,
}

/// Start a module under a name, by default its own, with arguments.
type Start = fn(Rc<Broker>, Option<String>, Vec<String>) -> LocalFuture<Result<Loaded, Failure>>;

/// The ranks on which rc1 loads a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    All,
    Leader,
    /// Only when it is asked for.
    Request,
}

/// All modules, in the order in which rc1 loads them; rc3 unloads them in the reverse order.
pub const MODULES: &[Module] = &[
    module::<Heartbeat>(On::All),
    module::<Content>(On::All),
    module::<ContentSqlite>(On::Leader),
    module::<Kvs>(On::All),
    module::<KvsWatch>(On::All),
    module::<Resource>(On::All),
    Module { args: &["sync=heartbeat.pulse"], ..module::<Cron>(On::Leader) },
    module::<JobManager>(On::Leader),
    module::<JobInfo>(On::All),
    module::<JobList>(On::Leader),
    module::<JobIngest>(On::All),
    module::<JobExec>(On::Leader),
    module::<Sched>(On::Leader),
];

/// Modules of flux-core that talk to systemd, which this broker does not.
const NEEDS_SYSTEMD: [&str; 4] = ["sdbus", "sdexec", "sdexec-mapper", "sdmon"];

/// The modules that are loaded now, in the order of loading.
#[derive(Debug, Default)]
pub struct Modules {
    loaded: RefCell<Vec<Rc<Loaded>>>,
    /// Always there; listed, but not unloaded by name.
    builtin: RefCell<Vec<Rc<Loaded>>>,
}

/// A row of [`MODULES`].
const fn module<S: Service>(on: On) -> Module {
    Module {
        name: S::NAME,
        on,
        args: &[],
        start: |broker, name, args| {
            Box::pin(async move { service::load::<S>(&broker, name.as_deref(), &args).await })
        },
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The row of a module; a path or the ending `.so` of an old configuration is not looked at.
pub fn find(path: &str) -> Option<&'static Module> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".so").unwrap_or(name);
    MODULES.iter().find(|module| module.name == name)
}

impl Modules {
    /// Load a module, under another name if one is given.
    ///
    /// ENOENT: no such module. EEXIST: the name is in use. Else what the module failed with.
    pub async fn load(
        &self,
        broker: &Rc<Broker>,
        path: &str,
        name: Option<&str>,
        args: &[String],
    ) -> Result<(), Failure> {
        if NEEDS_SYSTEMD.contains(&path) {
            return Err(Failure::new(Errno::ENOSYS, "Function not implemented"));
        }
        let module = find(path)
            .ok_or_else(|| Failure::new(Errno::ENOENT, "module not found in search path"))?;
        let as_name = name.unwrap_or(module.name);
        if self.get(as_name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        broker.log().append(Severity::Debug, "broker", &format!("insmod {as_name}"));
        let loaded = (module.start)(broker.clone(), name.map(str::to_owned), args.to_vec()).await?;
        self.loaded.borrow_mut().push(Rc::new(loaded));
        Ok(())
    }

    /// Unload a module and wait for its end. ENOENT: it is not loaded. EINVAL: it is always there.
    pub async fn remove(&self, broker: &Rc<Broker>, name: &str) -> Result<(), Failure> {
        if self.builtin.borrow().iter().any(|loaded| loaded.name == name) {
            return Err(Failure::new(Errno::EINVAL, "a builtin module can't be removed"));
        }
        let loaded = self.get(name).ok_or(Errno::ENOENT)?;
        broker.log().append(Severity::Debug, "broker", &format!("rmmod {name}"));
        loaded.stop().await;
        self.loaded.borrow_mut().retain(|other| !Rc::ptr_eq(other, &loaded));
        broker.log().append(Severity::Debug, "broker", &format!("module {name} exited"));
        Ok(())
    }

    /// Make the modules known that are there from the first state to the last.
    pub fn set_builtin(&self, builtin: Vec<Rc<Loaded>>) {
        *self.builtin.borrow_mut() = builtin;
    }

    pub fn get(&self, name: &str) -> Option<Rc<Loaded>> {
        self.list_all().into_iter().find(|loaded| loaded.name == name)
    }

    /// Those that are always there, then the others in the order of loading.
    pub fn list_all(&self) -> Vec<Rc<Loaded>> {
        self.builtin.borrow().iter().chain(self.loaded.borrow().iter()).cloned().collect()
    }

    /// In the order of loading.
    pub fn list(&self) -> Vec<Rc<Loaded>> {
        self.loaded.borrow().clone()
    }

    /// Load what rc1 loads on this rank. Stops at the first that fails, and names it.
    ///
    /// Where a dump is to be restored, the store begins empty, and is filled before anybody uses it.
    pub async fn load_all(&self, broker: &Rc<Broker>) -> Result<(), Failure> {
        let mut restore = match broker.rank() {
            0 => Restore::planned(broker.attrs())?,
            _ => None,
        };
        for module in MODULES {
            let wanted = match module.on {
                On::All => true,
                On::Leader => broker.rank() == 0,
                On::Request => false,
            };
            let mut args: Vec<String> = module.args.iter().map(|arg| (*arg).to_owned()).collect();
            if module.name == ContentSqlite::NAME && restore.is_some() {
                args.push("truncate".to_owned());
            }
            if wanted && self.get(module.name).is_none() {
                self.load(broker, module.name, None, &args).await.map_err(|failure| {
                    Failure::new(failure.errno, format!("{}: {failure}", module.name))
                })?;
            }
            if module.name == ContentSqlite::NAME
                && let Some(restore) = restore.take()
            {
                restore.run(broker).await?;
            }
        }
        Ok(())
    }

    /// Unload all, the last first; when nobody changes the store any more, dump it if that is wanted.
    pub async fn remove_all(&self, broker: &Rc<Broker>) -> Result<(), Failure> {
        let mut dumped = Ok(());
        while let Some(loaded) = self.list().last().cloned() {
            if loaded.name == ContentSqlite::NAME {
                dumped = dump::write(broker).await;
            }
            if loaded.status() != Status::Exited {
                let _ = self.remove(broker, &loaded.name).await;
            }
        }
        dumped
    }
}
