//! Settings of the overlay network: the `[tbon]` table (flux-config-tbon(5)) and the `tbon.*`
//! attributes, which the command line sets and which stand above the table.

use std::time::Duration;

use flux_protocol::fsd;

use crate::attrs::{Access, Attrs};
use crate::config::Config;
use crate::config::bootstrap as table;
use crate::config::table::TableError;
use crate::overlay::topology::{Shape, ShapeError};

const TORPID_MIN: f64 = 5.0;
const TORPID_MAX: f64 = 30.0;
const CONNECT_TIMEOUT: f64 = 30.0;
/// Left to the operating system.
const TCP_USER_TIMEOUT: f64 = 0.0;
const INTERFACE_HINT: &str = "default-route";
/// The tree of flux-core before it could be configured.
const SHAPE: Shape = Shape::Kary(2);

/// The checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Tbon {
    /// None: by the `parent` keys of the hosts if they have any, else `kary:2`.
    pub shape: Option<Shape>,
    pub torpid: Torpid,
    /// None: left to the operating system.
    pub tcp_user_timeout: Option<Duration>,
    /// None: left to the operating system.
    pub connect_timeout: Option<Duration>,
    pub prefer_tcp: bool,
    pub interface_hint: String,
    /// Messages queued from one child; 0 for no limit, None for the transport's own.
    pub child_rcvhwm: Option<u32>,
    pub zmq_io_threads: u32,
}

/// When a silent child is reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Torpid {
    /// A broker says something to its parent at least this often.
    pub min: Duration,
    /// A child that has been silent for longer is torpid; zero: none ever is.
    pub max: Duration,
}

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TbonError {
    #[error("Config file error: {0}")]
    Table(#[from] TableError),
    #[error("Config file error parsing tbon.{0}")]
    ConfigDuration(&'static str),
    #[error("Error parsing tbon.{0} attribute")]
    AttrDuration(&'static str),
    #[error("tbon.{0} value must be an integer")]
    Integer(&'static str),
    #[error("tbon.torpid_min must be nonzero")]
    TorpidMinZero,
    #[error("tbon.torpid_min must be less than torpid_max")]
    TorpidOrder,
    #[error("tbon.child_rcvhwm must be 0 (unlimited) or >= 2")]
    ReceiveQueue,
    #[error("tbon.zmq_io_threads must be >= 1")]
    IoThreads,
    #[error("tbon.topo: {0}")]
    Shape(#[from] ShapeError),
}

// === impl TbonError ===

impl TbonError {
    /// Where to look in the files.
    pub(super) fn key(&self) -> &'static str {
        match self {
            TbonError::Table(_)
            | TbonError::ConfigDuration(_)
            | TbonError::AttrDuration(_)
            | TbonError::Integer(_) => "tbon",
            TbonError::TorpidMinZero | TbonError::TorpidOrder => "tbon.torpid_min",
            TbonError::ReceiveQueue => "tbon.child_rcvhwm",
            TbonError::IoThreads => "tbon.zmq_io_threads",
            TbonError::Shape(_) => "tbon.topo",
        }
    }
}

// === impl Tbon ===

impl Tbon {
    /// Read the settings, and set the attributes to what holds.
    pub fn load(attrs: &Attrs, config: &Config) -> Result<Tbon, TbonError> {
        let table = table::Tbon::parse(config)?;
        let shape = shape(attrs, &table)?;
        let torpid = Torpid {
            min: duration(attrs, "torpid_min", table.torpid_min, TORPID_MIN)?,
            max: duration(attrs, "torpid_max", table.torpid_max, TORPID_MAX)?,
        };
        torpid.check()?;
        let timeout = |name, config, default| {
            let value = duration(attrs, name, config, default)?;
            Ok::<_, TbonError>((!value.is_zero()).then_some(value))
        };
        let prefer_tcp = integer(attrs, "prefertcp", table.prefertcp)?.unwrap_or(0) != 0;
        let threads = integer(attrs, "zmq_io_threads", table.zmq_io_threads)?.unwrap_or(1);
        let queue = integer(attrs, "child_rcvhwm", table.child_rcvhwm)?;
        if queue.is_some_and(|queue| queue < 0 || queue == 1) {
            return Err(TbonError::ReceiveQueue);
        }
        attrs.put("tbon.zmq_io_threads", threads.to_string(), Access::ReadOnly);
        attrs.put("tbon.child_rcvhwm", queue.unwrap_or(0).to_string(), Access::ReadOnly);
        attrs.put("tbon.prefertcp", u8::from(prefer_tcp).to_string(), Access::ReadOnly);
        let debug = integer(attrs, "zmqdebug", table.zmqdebug)?.unwrap_or(0);
        attrs.put("tbon.zmqdebug", debug.to_string(), Access::ReadOnly);
        Ok(Tbon {
            shape,
            torpid,
            tcp_user_timeout: timeout(
                "tcp_user_timeout",
                table.tcp_user_timeout,
                TCP_USER_TIMEOUT,
            )?,
            connect_timeout: timeout("connect_timeout", table.connect_timeout, CONNECT_TIMEOUT)?,
            prefer_tcp,
            interface_hint: interface_hint(attrs, table.interface_hint),
            child_rcvhwm: queue.and_then(|queue| u32::try_from(queue).ok()),
            zmq_io_threads: u32::try_from(threads)
                .ok()
                .filter(|threads| *threads > 0)
                .ok_or(TbonError::IoThreads)?,
        })
    }
}

// === impl Torpid ===

impl Torpid {
    /// The settings of a new configuration, which stands above the command line then. What it does
    /// not name stays.
    pub fn reloaded(self, attrs: &Attrs, config: &Config) -> Result<Torpid, TbonError> {
        let table = table::Tbon::parse(config)?;
        let value = |name, config: Option<f64>, old| match config {
            Some(seconds) => {
                Duration::try_from_secs_f64(seconds).map_err(|_| TbonError::ConfigDuration(name))
            }
            None => Ok(old),
        };
        let torpid = Torpid {
            min: value("torpid_min", table.torpid_min, self.min)?,
            max: value("torpid_max", table.torpid_max, self.max)?,
        };
        torpid.check()?;
        put_duration(attrs, "torpid_min", torpid.min);
        put_duration(attrs, "torpid_max", torpid.max);
        Ok(torpid)
    }

    fn check(self) -> Result<(), TbonError> {
        if self.min.is_zero() {
            return Err(TbonError::TorpidMinZero);
        }
        if !self.max.is_zero() && self.min >= self.max {
            return Err(TbonError::TorpidOrder);
        }
        Ok(())
    }
}

impl Default for Torpid {
    fn default() -> Torpid {
        Torpid {
            min: Duration::from_secs_f64(TORPID_MIN),
            max: Duration::from_secs_f64(TORPID_MAX),
        }
    }
}

/// By attribute before table, and by `topo` before its older form `fanout`.
fn shape(attrs: &Attrs, table: &table::Tbon) -> Result<Option<Shape>, TbonError> {
    let kary = |fanout: String| format!("kary:{fanout}");
    let text = attrs
        .get("tbon.topo")
        .or_else(|| attrs.get("tbon.fanout").map(kary))
        .or_else(|| table.topo.clone())
        .or_else(|| table.fanout.map(|fanout| kary(fanout.to_string())));
    Ok(text.as_deref().map(str::parse).transpose()?)
}

/// The shape when none is set.
pub(super) fn default_shape(hosts_have_parents: bool) -> Shape {
    if hosts_have_parents { Shape::Custom } else { SHAPE }
}

fn duration(
    attrs: &Attrs,
    name: &'static str,
    config: Option<f64>,
    default: f64,
) -> Result<Duration, TbonError> {
    let seconds = config.unwrap_or(default);
    let mut value =
        Duration::try_from_secs_f64(seconds).map_err(|_| TbonError::ConfigDuration(name))?;
    if let Some(text) = attrs.get(&format!("tbon.{name}")) {
        value = parse(&text).ok_or(TbonError::AttrDuration(name))?;
    }
    put_duration(attrs, name, value);
    Ok(value)
}

fn parse(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(fsd::parse(text).ok()?).ok()
}

fn put_duration(attrs: &Attrs, name: &str, value: Duration) {
    let text = fsd::format(value.as_secs_f64()).unwrap_or_default();
    attrs.put(&format!("tbon.{name}"), text, Access::ReadOnly);
}

/// The value that holds, which the attribute then has.
fn integer(
    attrs: &Attrs,
    name: &'static str,
    config: Option<i64>,
) -> Result<Option<i64>, TbonError> {
    let attr = format!("tbon.{name}");
    let value = match attrs.get(&attr) {
        Some(text) => Some(text.parse().map_err(|_| TbonError::Integer(name))?),
        None => config,
    };
    if let Some(value) = value {
        attrs.put(&attr, value.to_string(), Access::ReadOnly);
    }
    Ok(value)
}

/// Attribute, then table, then the environment variables that came before both.
fn interface_hint(attrs: &Attrs, config: Option<String>) -> String {
    let hint = attrs.get("tbon.interface-hint").or(config).or_else(|| {
        let by_name = std::env::var_os("FLUX_IPADDR_HOSTNAME").map(|_| "hostname".to_owned());
        std::env::var("FLUX_IPADDR_INTERFACE").ok().or(by_name)
    });
    let hint = hint.unwrap_or_else(|| INTERFACE_HINT.to_owned());
    attrs.put("tbon.interface-hint", &hint, Access::Immutable);
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, set: &[(&str, &str)]) -> (Result<Tbon, String>, Attrs) {
        let attrs = Attrs::default();
        for (name, value) in set {
            attrs.put(name, *value, Access::ReadOnly);
        }
        let config = Config::from_object(toml::from_str(toml).unwrap());
        (Tbon::load(&attrs, &config).map_err(|error| error.to_string()), attrs)
    }

    #[test]
    fn defaults_are_those_of_the_guide() {
        let (tbon, attrs) = load("", &[]);
        let tbon = tbon.unwrap();
        assert_eq!((tbon.shape, tbon.torpid), (None, Torpid::default()));
        assert_eq!((tbon.tcp_user_timeout, tbon.prefer_tcp), (None, false));
        for (name, value) in [
            ("tbon.torpid_min", "5s"),
            ("tbon.torpid_max", "30s"),
            ("tbon.tcp_user_timeout", "0s"),
            ("tbon.connect_timeout", "30s"),
            ("tbon.interface-hint", "default-route"),
            ("tbon.prefertcp", "0"),
        ] {
            assert_eq!(attrs.get(name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn command_line_stands_above_the_table() {
        let toml = "[tbon]\ntcp_user_timeout = '2m'\ntorpid_max = '1h'\ntopo = 'binomial'";
        let (tbon, attrs) = load(toml, &[("tbon.torpid_max", "2s"), ("tbon.torpid_min", "1s")]);
        let tbon = tbon.unwrap();
        assert_eq!(tbon.tcp_user_timeout, Some(Duration::from_secs(120)));
        assert_eq!(tbon.torpid.max, Duration::from_secs(2));
        assert_eq!(tbon.shape, Some(Shape::Binomial));
        assert_eq!(attrs.get("tbon.tcp_user_timeout").as_deref(), Some("2m"));
        let (tbon, _) = load(toml, &[("tbon.fanout", "256")]);
        assert_eq!(tbon.unwrap().shape, Some(Shape::Kary(256)));
    }

    #[test]
    fn new_configuration_stands_above_the_command_line() {
        let (tbon, attrs) = load("", &[("tbon.torpid_max", "2s"), ("tbon.torpid_min", "1s")]);
        let config = toml::from_str("[tbon]\ntorpid_max = '0'").unwrap();
        let torpid = tbon.unwrap().torpid.reloaded(&attrs, &Config::from_object(config)).unwrap();
        assert_eq!((torpid.min.as_secs(), torpid.max.as_secs()), (1, 0));
        assert_eq!(attrs.get("tbon.torpid_max").as_deref(), Some("0s"));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        for (toml, expected) in [
            ("torpid_min = '0'", "tbon.torpid_min must be nonzero"),
            ("torpid_min = '30s'", "tbon.torpid_min must be less than torpid_max"),
            ("torpid_max = 'soon'", "Config file error: error parsing [tbon] config table:"),
            ("connect_timeout = 'infinity'", "Config file error parsing tbon.connect_timeout"),
            ("child_rcvhwm = 1", "tbon.child_rcvhwm must be 0 (unlimited) or >= 2"),
            ("zmq_io_threads = 0", "tbon.zmq_io_threads must be >= 1"),
            ("topo = 'star'", "tbon.topo: unknown topology scheme 'star'"),
        ] {
            let error = load(&format!("[tbon]\n{toml}"), &[]).0.unwrap_err();
            assert!(error.starts_with(expected), "{toml}: {error}");
        }
        let error = |attr| load("", &[(attr, "x")]).0.unwrap_err();
        assert_eq!(error("tbon.torpid_min"), "Error parsing tbon.torpid_min attribute");
        assert_eq!(error("tbon.prefertcp"), "tbon.prefertcp value must be an integer");
    }
}
