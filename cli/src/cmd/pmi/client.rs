//! A process among those that were launched together, by whichever method the launcher offers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::net::UnixStream;

use flux_pmi::Failed;
use flux_pmi::client::{Client, Launch, LaunchError};
use flux_pmi::library::{self, Interface, LaunchLibrary, LibraryError};

use crate::sys::inherited_fd;

const METHODS: &str = "config simple libpmi2 libpmi single";

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) trace: bool,
    pub(super) library: library::Options,
}

#[derive(Debug)]
pub(super) struct Pmi {
    method: Method,
    rank: u32,
    size: u32,
    name: String,
    trace: bool,
}

#[derive(Debug)]
enum Method {
    /// A server at the other end of a socket, of which the environment tells.
    Simple(Client<UnixStream>),
    Library(LaunchLibrary),
    /// Nobody else is there.
    Single(BTreeMap<String, String>),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PmiError {
    #[error("{0}: unknown PMI method: use config, simple, libpmi2[:PATH], libpmi[:PATH] or single")]
    Method(String),
    #[error("bootstrap configuration not found")]
    NoConfig,
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("PMI_FD {0} is not an open file descriptor")]
    Descriptor(i32),
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("key not found")]
    NoKey,
    #[error("no PMI method is named")]
    Nothing,
}

// === impl Pmi ===

impl Pmi {
    /// By the method named, or by the first that works of those that the environment names.
    pub(super) fn open(
        method: Option<&str>,
        env: impl Fn(&'static str) -> Option<String>,
        options: Options,
    ) -> Result<Pmi, PmiError> {
        if let Some(method) = method {
            let (mut pmi, note) = Pmi::by(method, &env, options)?;
            if let Some(note) = note {
                pmi.trace(note);
            }
            pmi.initialize()?;
            return Ok(pmi);
        }
        let say = |who: &str, what: &dyn Display| {
            if options.trace {
                eprintln!("{who}: {what}");
            }
        };
        let methods = env("FLUX_PMI_CLIENT_METHODS").unwrap_or_else(|| METHODS.to_owned());
        let mut last = PmiError::Nothing;
        for method in methods.split_ascii_whitespace() {
            say("flux-pmi-client", &format_args!("trying '{method}'"));
            match Pmi::by(method, &env, options) {
                Ok((mut pmi, note)) => {
                    pmi.trace(note.as_deref().unwrap_or("selected"));
                    pmi.initialize()?;
                    return Ok(pmi);
                }
                Err(error) => {
                    say(method, &error);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// By one method; with a note on what was found.
    fn by(
        method: &str,
        env: impl Fn(&'static str) -> Option<String>,
        options: Options,
    ) -> Result<(Pmi, Option<String>), PmiError> {
        let with = |method, rank, size, name| {
            let pmi = Pmi { method, rank, size, name, trace: options.trace };
            let note = match &pmi.method {
                Method::Library(library) => Some(library.note()),
                _ => None,
            };
            Ok((pmi, note))
        };
        if let Some((interface, path)) = Interface::of_method(method) {
            let library = LaunchLibrary::init(interface, path, options.library)?;
            let (rank, size, name) = (library.rank(), library.size(), library.name().to_owned());
            return with(Method::Library(library), rank, size, name);
        }
        match method {
            "config" => Err(PmiError::NoConfig),
            "simple" => {
                let launch = Launch::from_env(env)?;
                let socket = inherited_fd(launch.fd).ok_or(PmiError::Descriptor(launch.fd))?;
                let mut client = Client::new(launch, UnixStream::from(socket))?;
                let name = client.name()?.to_owned();
                with(Method::Simple(client), launch.rank, launch.size, name)
            }
            "single" => with(Method::Single(BTreeMap::new()), 0, 1, "single".to_owned()),
            _ => Err(PmiError::Method(method.to_owned())),
        }
    }

    fn initialize(&mut self) -> Result<(), PmiError> {
        let about = format!("rank={} size={} name={}", self.rank, self.size, self.name);
        self.done("initialize:", &about, Ok(()))
    }

    pub(super) fn rank(&self) -> u32 {
        self.rank
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Of the space that all these processes share.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        let result = match &mut self.method {
            Method::Simple(client) => client.put(&self.name, key, value).map_err(PmiError::from),
            Method::Library(library) => library.put(key, value).map_err(PmiError::from),
            Method::Single(pairs) => {
                pairs.insert(key.to_owned(), value.to_owned());
                Ok(())
            }
        };
        let value = if result.is_ok() { format!(" value={value}") } else { String::new() };
        self.done("put", &format!("key={key}{value}"), result)
    }

    pub(super) fn get(&mut self, key: &str) -> Result<String, PmiError> {
        let result = match &mut self.method {
            Method::Simple(client) => client.get(&self.name, key).map_err(PmiError::from),
            Method::Library(library) => library.get(key).map_err(PmiError::from),
            Method::Single(pairs) => pairs.get(key).cloned().ok_or(PmiError::NoKey),
        };
        let value = match &result {
            Ok(value) => format!(" value={value}"),
            Err(_) => String::new(),
        };
        self.done("get", &format!("key={key}{value}"), result)
    }

    pub(super) fn barrier(&mut self) -> Result<(), PmiError> {
        let result = match &mut self.method {
            Method::Simple(client) => client.barrier().map_err(PmiError::from),
            Method::Library(library) => library.barrier().map_err(PmiError::from),
            Method::Single(_) => Ok(()),
        };
        self.done("barrier", "", result)
    }

    /// Have the launcher end all processes, and end.
    pub(super) fn abort(&mut self, text: &str) -> Result<(), PmiError> {
        let result = match &mut self.method {
            Method::Simple(client) => client.abort(1, Some(text)).map_err(PmiError::from),
            Method::Library(library) => library.abort(text).map_err(PmiError::from),
            Method::Single(_) => {
                eprintln!("{text}");
                Ok(())
            }
        };
        self.done("abort", "", result)?;
        std::process::exit(1);
    }

    pub(super) fn finalize(self) -> Result<(), PmiError> {
        let (scheme, trace) = (self.scheme(), self.trace);
        match self.method {
            Method::Simple(client) => client.finalize()?,
            Method::Library(library) => library.finalize()?,
            Method::Single(_) => {}
        }
        if trace {
            eprintln!("{scheme}: finalize: success");
        }
        Ok(())
    }

    fn scheme(&self) -> &'static str {
        match &self.method {
            Method::Simple(_) => "simple",
            Method::Library(library) => library.interface().method(),
            Method::Single(_) => "single",
        }
    }

    fn trace(&self, text: impl Display) {
        if self.trace {
            eprintln!("{}: {text}", self.scheme());
        }
    }

    fn done<T>(
        &self,
        operation: &str,
        about: &str,
        result: Result<T, PmiError>,
    ) -> Result<T, PmiError> {
        let space = if about.is_empty() { "" } else { " " };
        match &result {
            Ok(_) => self.trace(format_args!("{operation}{space}{about}: success")),
            Err(error) => self.trace(format_args!("{operation}{space}{about}: {error}")),
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(method: Option<&str>) -> Result<Pmi, PmiError> {
        Pmi::open(method, |_| None, Options::default())
    }

    #[test]
    fn single_process_has_a_space_of_its_own() {
        let mut pmi = open(Some("single")).unwrap();
        pmi.put("a", "b c").unwrap();
        pmi.barrier().unwrap();
        assert_eq!(pmi.get("a").unwrap(), "b c");
        assert!(matches!(pmi.get("x"), Err(PmiError::NoKey)));
        assert_eq!((pmi.rank(), pmi.size()), (0, 1));
        pmi.finalize().unwrap();
    }

    #[test]
    fn methods_are_tried_in_the_order_that_the_environment_names() {
        let with = |methods: &'static str| {
            let env = move |name: &'static str| {
                (name == "FLUX_PMI_CLIENT_METHODS").then(|| methods.to_owned())
            };
            Pmi::open(None, env, Options::default())
        };
        assert_eq!(with("config simple single").unwrap().scheme(), "single");
        let error = with("single2 simple").unwrap_err();
        assert_eq!(error.to_string(), "PMI_FD not found in environ");
        assert_eq!(with("").unwrap_err().to_string(), "no PMI method is named");
    }

    #[test]
    fn a_method_that_can_not_be_used_is_refused() {
        let env = |name: &'static str| Some(if name == "PMI_FD" { "99" } else { "1" }.to_owned());
        let error = Pmi::open(Some("simple"), env, Options::default()).unwrap_err();
        assert!(matches!(error, PmiError::Descriptor(99)));
        let error = open(Some("magic")).unwrap_err();
        assert!(error.to_string().starts_with("magic: unknown PMI method: use "), "{error}");
        let error = open(Some("libpmi:/nonexistent/libpmi.so")).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/libpmi.so: cannot open"), "{error}");
    }
}
