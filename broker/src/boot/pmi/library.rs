//! A launcher's library in a thread of its own: each call of it may wait, for all the other ranks
//! in a barrier, and the broker is to hear of signals meanwhile.

use std::sync::mpsc;

use flux_pmi::library::{Interface, LaunchLibrary, LibraryError, Options};
use tokio::sync::oneshot;

use super::PmiError;

/// What is done with the library, by its thread.
type Call = Box<dyn FnOnce(LaunchLibrary) -> Option<LaunchLibrary> + Send>;

/// A launch, past the library's init.
#[derive(Debug)]
pub(in crate::boot) struct LibraryPmi {
    calls: mpsc::Sender<Call>,
    interface: Interface,
    pub(super) rank: u32,
    pub(super) size: u32,
    pub(super) kvsname: String,
    /// Which file it is.
    pub(in crate::boot) note: String,
}

// === impl LibraryPmi ===

impl LibraryPmi {
    pub(super) const VALUE_MAX: usize = LaunchLibrary::VALUE_MAX;

    /// Load the library, by its name or from `path`. Not one of ours: there, the wire protocol is
    /// what works, and who is started without it would wait for himself.
    pub(in crate::boot) async fn init(
        interface: Interface,
        path: Option<String>,
    ) -> Result<LibraryPmi, PmiError> {
        let (calls, inbox) = mpsc::channel::<Call>();
        let (reply, answer) = oneshot::channel();
        let run = move || {
            let options = Options { noflux: true, cray: false };
            let library = LaunchLibrary::init(interface, path.as_deref(), options);
            let (told, mut library) = match library {
                Ok(library) => {
                    let name = library.name().to_owned();
                    let told = (library.rank(), library.size(), name, library.note());
                    (Ok(told), Some(library))
                }
                Err(error) => (Err(error), None),
            };
            // Who has asked may have given up by now.
            let _ = reply.send(told);
            while let Some(current) = library
                && let Ok(call) = inbox.recv()
            {
                library = call(current);
            }
        };
        let (method, command) = (interface.method(), "init");
        let thread = std::thread::Builder::new().name("pmi-library".to_owned()).spawn(run);
        thread.map_err(|_| PmiError::Gone { method, command })?;
        let told = answer.await.map_err(|_| PmiError::Gone { method, command })?;
        let (rank, size, kvsname, note) =
            told.map_err(|error| PmiError::Library { method, command, error })?;
        Ok(LibraryPmi { calls, interface, rank, size, kvsname, note })
    }

    pub(super) fn method(&self) -> &'static str {
        self.interface.method()
    }

    pub(super) async fn put(&self, key: &str, value: &str) -> Result<(), PmiError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.call("put", move |library| library.put(&key, &value)).await
    }

    pub(super) async fn get(&self, key: &str) -> Result<String, PmiError> {
        let key = key.to_owned();
        self.call("get", move |library| library.get(&key)).await
    }

    pub(super) async fn barrier(&self) -> Result<(), PmiError> {
        self.call("barrier", LaunchLibrary::barrier).await
    }

    pub(super) async fn finalize(self) -> Result<(), PmiError> {
        self.send("finalize", |library| (library.finalize(), None)).await
    }

    async fn call<T: Send + 'static>(
        &self,
        command: &'static str,
        operation: impl FnOnce(&LaunchLibrary) -> Result<T, LibraryError> + Send + 'static,
    ) -> Result<T, PmiError> {
        self.send(command, |library| (operation(&library), Some(library))).await
    }

    async fn send<T: Send + 'static>(
        &self,
        command: &'static str,
        operation: impl FnOnce(LaunchLibrary) -> (Result<T, LibraryError>, Option<LaunchLibrary>)
        + Send
        + 'static,
    ) -> Result<T, PmiError> {
        let method = self.method();
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |library| {
            let (result, library) = operation(library);
            let _ = reply.send(result);
            library
        });
        self.calls.send(call).map_err(|_| PmiError::Gone { method, command })?;
        let result = answer.await.map_err(|_| PmiError::Gone { method, command })?;
        result.map_err(|error| PmiError::Library { method, command, error })
    }
}
