//! A broker process from its command line to its exit code.

use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use nix::unistd::getuid;

use crate::attrs::{Access, Attrs, known};
use crate::boot::{self, BootError};
use crate::broker::Broker;
use crate::config::{Config, ConfigError};
use crate::connector::Connector;
use crate::life::Life;
use crate::loaded::Loaded;
use crate::log::{self, Severity};
use crate::metrics::Endpoint;
use crate::overlay::Overlay;
use crate::overlay::transport::TransportError;
use crate::parent;
use crate::rc::{self, Script};
use crate::rundir::{Rundir, RundirError};
use crate::service;
use crate::services::attr::Attr;
use crate::services::broker::BrokerService;
use crate::services::config::ConfigService;
use crate::services::connector_local::ConnectorLocal;
use crate::services::event::Event;
use crate::services::groups::Groups;
use crate::services::heaptrace::Heaptrace;
use crate::services::log::Log;
use crate::services::module::Module;
use crate::services::overlay::Overlay as OverlayService;
use crate::services::rexec::Rexec;
use crate::services::runat::Runat;
use crate::services::shutdown::Shutdown;
use crate::services::state_machine::StateMachine;
use crate::state::State;

/// The command line of `flux broker`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-S NAME=VALUE`, or `-S NAME`
    pub attrs: Vec<(String, Option<String>)>,
    pub config_path: Option<PathBuf>,
    /// `--conf`, in order.
    pub config_updates: Vec<String>,
    pub verbose: u8,
    /// The initial program.
    pub command: Vec<String>,
}

/// Why a broker can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("Config file error: {0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Rundir(#[from] RundirError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Overlay(#[from] TransportError),
    #[error("{attr}: {text}")]
    Attr { attr: &'static str, text: String },
    #[error("{name}: {why}")]
    GivenAttr { name: String, why: &'static str },
    #[error("{0}")]
    LogAttr(Failure),
    #[error("could not listen at {}: {error}", path.display())]
    Listen { path: PathBuf, error: std::io::Error },
    #[error("could not start the {service} service: {text}")]
    Service { service: &'static str, text: String },
    #[error(
        "stdin is not a tty - can't run interactive shell: give a command to run, or \
         -Sbroker.rc2_none to run none"
    )]
    NoTerminal,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Run a broker to its end; the exit code of the process.
pub async fn run(options: Options) -> Result<u8, StartError> {
    let attrs = Attrs::default();
    for (name, value) in &options.attrs {
        let value = known::on_command_line(name, value.as_deref())
            .map_err(|why| StartError::GivenAttr { name: name.clone(), why })?;
        attrs.give(name, value);
    }
    log::check_attrs(&attrs).map_err(StartError::LogAttr)?;
    let config = load_config(&options, &attrs)?;
    let booting = boot::begin(&attrs, &config, &attrs.hostname()).await?;
    let (rank, size) = (booting.rank(), booting.size());
    let rundir = Rundir::create(&attrs, rank)?;
    let boot = booting.wire_up(&attrs).await?;
    set_general_attrs(&attrs, rank, size)?;
    let owner = Userid(getuid().as_raw());
    let broker = Broker::new(rank, size, owner, attrs, config);
    broker.log().check_opened().map_err(StartError::LogAttr)?;
    name_process(rank);
    parent::set_attrs(broker.attrs(), broker.environment());
    for warning in broker.config().warnings() {
        broker.log().append(Severity::Warning, "config", &warning);
    }
    let overlay = Overlay::start(&broker, boot)?;
    let initial_program = initial_program(&broker, &options);
    if initial_program == Some(Script::Shell) && !std::io::stdin().is_terminal() {
        return Err(StartError::NoTerminal);
    }
    let life = Life::new(broker.attrs(), overlay.clone(), initial_program)?;
    broker.set_life(life.clone());
    let socket = socket_path(broker.attrs())?;
    let connector = Connector::listen(&broker, &socket)
        .map_err(|error| StartError::Listen { path: socket.clone(), error })?;
    let services = load_services(&broker).await?;
    let metrics = Endpoint::start(&broker)
        .map_err(|error| StartError::Attr { attr: "metrics-socket", text: error.to_string() })?;
    parent::announce(&broker, broker.attrs().hostname());
    let mut state = life.state();
    // The sender lives as long as `life`.
    let _ = state.wait_for(|state| *state == State::Exit).await;
    drop(metrics);
    unload(&broker, &life, &services).await;
    overlay.stop();
    drop(connector);
    rundir.remove();
    Ok(life.exit_code())
}

/// Stop what no rc script has loaded; one that hangs must not keep the broker.
async fn unload(broker: &Rc<Broker>, life: &Life, services: &[Rc<Loaded>]) {
    let limit = broker.attrs().duration(UNLOAD_TIMEOUT);
    let until = limit.and_then(|limit| tokio::time::Instant::now().checked_add(limit));
    for loaded in services.iter().rev() {
        let stop = loaded.stop();
        let stopped = match until {
            Some(until) => tokio::time::timeout_at(until, stop).await.is_ok(),
            None => {
                stop.await;
                true
            }
        };
        if !stopped {
            let text = format!(
                "unloading built-in broker module timed out: {} is not done in {UNLOAD_TIMEOUT}",
                loaded.name
            );
            broker.log().append(Severity::Err, "broker", &text);
            life.fail();
        }
    }
}

fn load_config(options: &Options, attrs: &Attrs) -> Result<Config, StartError> {
    let from_env = std::env::var_os("FLUX_CONF_DIR").map(PathBuf::from);
    let path = options.config_path.clone().or(from_env);
    let mut config = match &path {
        Some(path) => {
            attrs.put("config.path", path.to_string_lossy(), Access::Immutable);
            Config::load(path)?
        }
        None => Config::default(),
    };
    for update in &options.config_updates {
        config.update(update)?;
    }
    config.check()?;
    Ok(config)
}

/// As process listings show it: whoever looks for a broker looks for one of them.
fn name_process(rank: u32) {
    // A name is cut to what the kernel keeps of it.
    let named = std::ffi::CString::new(format!("flux-broker-{rank}"));
    if let Ok(name) = named {
        // It is a convenience; the broker does without.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// What the owner may set while the broker runs, beside the attributes of the log.
const RUNTIME_ATTRS: [&str; 6] = [
    "broker.exit-restart",
    "conf.shell_initrc",
    "conf.shell_pluginpath",
    "content.dump",
    "content.restore",
    "log-filename",
];

/// Attributes that only tell what is so.
fn set_general_attrs(attrs: &Attrs, rank: u32, size: u32) -> Result<(), StartError> {
    let immutable = [
        ("rank", rank.to_string()),
        ("size", size.to_string()),
        ("broker.pid", std::process::id().to_string()),
        ("security.owner", getuid().to_string()),
        ("broker.starttime", start_time()),
    ];
    for (name, value) in immutable {
        attrs.put(name, value, Access::Immutable);
    }
    for name in RUNTIME_ATTRS {
        attrs.declare(name, Access::Runtime);
    }
    attrs.put("version", crate::VERSION, Access::ReadOnly);
    attrs.put_default("instance-level", "0", Access::Immutable);
    attrs.put_default("hostlist", attrs.hostname(), Access::Immutable);
    attrs.put_default("hostname", attrs.hostname(), Access::ReadOnly);
    for phase in [rc::RC1, rc::RC3] {
        attrs.put_default(phase.attr, phase.builtin, Access::ReadOnly);
    }
    attrs.put_default("broker.quorum", size.to_string(), Access::ReadOnly);
    // Its older name, by which whoever has set it knows it.
    if let Some(warn) = attrs.get(QUORUM_TIMEOUT) {
        check_limit(QUORUM_TIMEOUT, &warn)?;
        attrs.put_default("broker.quorum-warn", warn, Access::ReadOnly);
    }
    for (name, default) in LIMITS {
        attrs.put_default(name, default, Access::ReadOnly);
        check_limit(name, &attrs.get(name).unwrap_or_default())?;
    }
    Ok(())
}

fn check_limit(attr: &'static str, value: &str) -> Result<(), StartError> {
    if value == NO_LIMIT || flux_protocol::fsd::parse(value).is_ok() {
        return Ok(());
    }
    let text = format!("'{value}' is no duration (such as 30s or 1.5m), nor `{NO_LIMIT}'");
    Err(StartError::Attr { attr, text })
}

const QUORUM_TIMEOUT: &str = "broker.quorum-timeout";

/// How long a broker waits where nothing else was said.
const LIMITS: [(&str, &str); 6] = [
    (UNLOAD_TIMEOUT, "1m"),
    ("broker.quorum-warn", "1m"),
    ("broker.cleanup-timeout", NO_LIMIT),
    ("broker.sd-stop-timeout", NO_LIMIT),
    ("broker.shutdown-timeout", NO_LIMIT),
    ("broker.shutdown-warn", "1m"),
];
const NO_LIMIT: &str = "none";
const UNLOAD_TIMEOUT: &str = "broker.unload-builtins-timeout";

fn start_time() -> String {
    format!("{:.2}", crate::time::unix_seconds(std::time::SystemTime::now()))
}

fn initial_program(broker: &Broker, options: &Options) -> Option<Script> {
    let none = broker.attrs().get("broker.rc2_none").is_some();
    (broker.rank() == 0 && !none).then(|| Script::from_args(&options.command))
}

/// Where clients connect: `local-uri`, by default in the rundir.
fn socket_path(attrs: &Attrs) -> Result<PathBuf, StartError> {
    let rundir = attrs.get("rundir").unwrap_or_default();
    let rank = attrs.get("rank").unwrap_or_default();
    let default = format!("local://{rundir}/local-{rank}");
    attrs.put_default("local-uri", default, Access::Immutable);
    let uri = attrs.get("local-uri").unwrap_or_default();
    let path = uri.strip_prefix("local://").ok_or_else(|| StartError::Attr {
        attr: "local-uri",
        text: format!("'{uri}' is malformed: it does not begin with local://"),
    })?;
    let path = Path::new(path);
    check_socket_place(path).map_err(|text| StartError::Attr { attr: "local-uri", text })?;
    // A socket that a broker left behind when it crashed is in the way of the new one.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(StartError::Attr {
            attr: "local-uri",
            text: format!("another broker is listening at {}", path.display()),
        });
    }
    let _ = std::fs::remove_file(path);
    Ok(path.to_owned())
}

/// What the kernel would refuse with an errno that tells less. A user who may write anywhere learns
/// here, too, that nobody else could.
fn check_socket_place(path: &Path) -> Result<(), String> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        return Err(format!(
            "{}: length of {length} bytes exceeds max {SOCKET_PATH_MAX}: choose a shorter rundir",
            path.display()
        ));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = dir.display();
    let meta = std::fs::metadata(dir)
        .map_err(|error| format!("cannot stat {shown}: {}", Errno::from(&error)))?;
    if !meta.is_dir() {
        return Err(format!("{shown}: Not a directory"));
    }
    let (owner, mode) = (meta.uid(), meta.permissions().mode());
    if owner == getuid().as_raw() && mode & 0o700 != 0o700 {
        return Err(format!("{shown} does not have owner=rwx permissions; chmod u+rwx it"));
    }
    Ok(())
}

/// What fits into a socket's address, which ends in a zero.
const SOCKET_PATH_MAX: usize = 107;

/// Which of them are modules of flux-core, and are listed as such.
const BUILTIN_MODULES: [&str; 5] = ["config", "connector-local", "groups", "overlay", "rexec"];

/// The services that are there from the first state to the last.
async fn load_services(broker: &Rc<Broker>) -> Result<Vec<Rc<Loaded>>, StartError> {
    let services = vec![
        load::<OverlayService>(broker).await?,
        load::<Attr>(broker).await?,
        load::<Event>(broker).await?,
        load::<Log>(broker).await?,
        load::<BrokerService>(broker).await?,
        load::<ConnectorLocal>(broker).await?,
        load::<Runat>(broker).await?,
        load::<Heaptrace>(broker).await?,
        load::<Rexec>(broker).await?,
        load::<Groups>(broker).await?,
        load::<Shutdown>(broker).await?,
        load::<StateMachine>(broker).await?,
        load::<Module>(broker).await?,
        load::<ConfigService>(broker).await?,
    ];
    let services: Vec<Rc<Loaded>> = services.into_iter().map(Rc::new).collect();
    let is_module = |loaded: &&Rc<Loaded>| BUILTIN_MODULES.contains(&loaded.name.as_str());
    broker.modules().set_builtin(services.iter().filter(is_module).cloned().collect());
    Ok(services)
}

async fn load<S: service::Service>(broker: &Rc<Broker>) -> Result<Loaded, StartError> {
    service::load::<S>(broker, None, &[])
        .await
        .map_err(|failure| StartError::Service { service: S::NAME, text: failure.to_string() })
}
