//! The services that are loaded and unloaded by name, in flux-core's names for its modules.

use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::resource;

use crate::broker::Broker;
use crate::dump::{self, Restore};
use crate::handle::Handle;
use crate::loaded::{Loaded, Status};
use crate::log::Severity;
use crate::peers::LocalFuture;
use crate::service::{self, Service};
use crate::services::content::Content;
use crate::services::content_files::ContentFiles;
use crate::services::content_sqlite::ContentSqlite;
use crate::services::cron::Cron;
use crate::services::heartbeat::Heartbeat;
use crate::services::job_archive::JobArchive;
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
    /// Rank 0, when it is the one of these that `content.backing-module` names; the first, when
    /// nothing is named.
    LeaderToBackContent,
    /// Rank 0, when the configuration has this table.
    LeaderWith(&'static str),
    /// Only when it is asked for.
    Request,
}

/// All modules, in the order in which rc1 loads them; rc3 unloads them in the reverse order.
pub const MODULES: &[Module] = &[
    module::<Heartbeat>(On::All),
    module::<Content>(On::All),
    module::<ContentSqlite>(On::LeaderToBackContent),
    module::<ContentFiles>(On::LeaderToBackContent),
    module::<Kvs>(On::All),
    module::<KvsWatch>(On::All),
    module::<Resource>(On::All),
    Module { args: &["sync=heartbeat.pulse"], ..module::<Cron>(On::Leader) },
    module::<JobManager>(On::Leader),
    module::<JobInfo>(On::All),
    module::<JobList>(On::Leader),
    module::<JobArchive>(On::LeaderWith("archive")),
    module::<JobIngest>(On::All),
    module::<JobExec>(On::Leader),
    module::<Sched>(On::Leader),
];

/// Modules of flux-core that talk to systemd, which this broker does not.
const NEEDS_SYSTEMD: [&str; 4] = ["sdbus", "sdexec", "sdexec-mapper", "sdmon"];

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

/// Load a module, under another name if one is given.
///
/// ENOENT: no such module. EEXIST: the name is in use. Else what the module failed with.
pub async fn load(
    broker: &Rc<Broker>,
    path: &str,
    name: Option<&str>,
    args: &[String],
) -> Result<(), Failure> {
    if NEEDS_SYSTEMD.contains(&path) {
        return Err(Failure::new(Errno::ENOSYS, "Function not implemented"));
    }
    let module =
        find(path).ok_or_else(|| Failure::new(Errno::ENOENT, "module not found in search path"))?;
    let as_name = name.unwrap_or(module.name);
    if broker.modules().get(as_name).is_some() {
        return Err(Errno::EEXIST.into());
    }
    broker.log().append(Severity::Debug, "broker", &format!("insmod {as_name}"));
    let loaded = (module.start)(broker.clone(), name.map(str::to_owned), args.to_vec()).await?;
    broker.modules().add(Rc::new(loaded));
    Ok(())
}

/// Unload a module and wait for its end. ENOENT: it is not loaded. EINVAL: it is always there.
pub async fn remove(broker: &Rc<Broker>, name: &str) -> Result<(), Failure> {
    if broker.modules().is_builtin(name) {
        return Err(Failure::new(Errno::EINVAL, "a builtin module can't be removed"));
    }
    let loaded = broker.modules().get(name).ok_or(Errno::ENOENT)?;
    broker.log().append(Severity::Debug, "broker", &format!("rmmod {name}"));
    loaded.stop().await;
    broker.modules().forget(&loaded);
    broker.log().append(Severity::Debug, "broker", &format!("module {name} exited"));
    Ok(())
}

/// Load what rc1 loads on this rank. Stops at the first that fails, and names it.
///
/// Where a dump is to be restored, the store begins empty, and is filled before anybody uses it. What
/// there was goes when that has come to its end.
pub async fn load_all(broker: &Rc<Broker>) -> Result<(), Failure> {
    let mut restore = match broker.rank() {
        0 => Restore::planned(broker.attrs())?,
        _ => None,
    };
    let backing = backing_module(broker)?;
    for module in MODULES {
        let is_backing = module.name == backing;
        let wanted = match module.on {
            On::All => true,
            On::Leader => broker.rank() == 0,
            On::LeaderToBackContent => broker.rank() == 0 && is_backing,
            On::LeaderWith(table) => {
                broker.rank() == 0 && broker.config().object().contains_key(table)
            }
            On::Request => false,
        };
        let mut args: Vec<String> = module.args.iter().map(|arg| (*arg).to_owned()).collect();
        if is_backing && restore.is_some() {
            args.push("restore".to_owned());
        }
        if wanted && broker.modules().get(module.name).is_none() {
            load(broker, module.name, None, &args).await.map_err(|failure| {
                let place = broker.config().place_of(&failure.to_string());
                Failure::new(failure.errno, format!("{}: {place}{failure}", module.name))
            })?;
        }
        if is_backing && let Some(restore) = restore.take() {
            restore.run(broker).await?;
        }
    }
    hardware_is_known(broker).await;
    Ok(())
}

/// The module that keeps content. EINVAL: the attribute names none that does.
fn backing_module(broker: &Broker) -> Result<&'static str, Failure> {
    let mut known = MODULES.iter().filter(|module| module.on == On::LeaderToBackContent);
    let found = match broker.attrs().get("content.backing-module") {
        Some(name) => known.find(|module| module.name == name),
        None => known.next(),
    };
    found.map(|module| module.name).ok_or_else(|| {
        let names = [ContentSqlite::NAME, ContentFiles::NAME].join(" or ");
        Failure::new(Errno::EINVAL, format!("content.backing-module: must be {names}"))
    })
}

/// The look at the hardware goes on while the rest is loaded, but has to be over before this broker
/// is counted as online: where resources are discovered, the leader has its inventory when all are.
async fn hardware_is_known(broker: &Rc<Broker>) {
    if broker.modules().get(Resource::NAME).is_some() {
        let handle = Handle::new(broker.router().clone());
        // What failed has been logged, and does not keep a broker away.
        let _ = handle.rpc_to::<resource::TopoGet>(Nodeid(broker.rank()), &Empty).await;
    }
}

/// Unload all, the last first; when nobody changes the store any more, dump it if that is wanted.
pub async fn remove_all(broker: &Rc<Broker>) -> Result<(), Failure> {
    let mut dumped = Ok(());
    while let Some(loaded) = broker.modules().list().last().cloned() {
        if find(&loaded.name).is_some_and(|module| module.on == On::LeaderToBackContent) {
            dumped = dump::write(broker).await;
        }
        if loaded.status() != Status::Exited {
            let _ = remove(broker, &loaded.name).await;
        }
    }
    dumped
}
