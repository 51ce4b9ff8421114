//! `flux kvs get`: values once, or as they change.

use clap::Args;
use flux_client::kvs::{self, Root};
use flux_client::{Client, RpcError, Stream};
use flux_protocol::rpc::kvs::{LookupResponse, lookup};
use flux_protocol::rpc::kvs_watch;
use flux_protocol::treeobj::Treeobj;
use tokio::sync::mpsc;

use super::NamespaceOption;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{out, outln, output};

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs get [-N ns] [-r|-t] [-a treeobj] [-l] [-W] [-w] [-u] [-A] \
                            [-f] [-S] [-c COUNT] key [key...]")]
pub(crate) struct Get {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Interpret value(s) as raw data
    #[arg(short, long)]
    raw: bool,
    /// Show RFC 11 object
    #[arg(short, long)]
    treeobj: bool,
    /// Lookup relative to RFC 11 snapshot reference
    #[arg(short, long, value_name = "TREEOBJ")]
    at: Option<String>,
    /// Print key= before value
    #[arg(short, long)]
    label: bool,
    /// Wait for creation to occur on watch
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// Monitor key writes
    #[arg(short, long)]
    watch: bool,
    /// Only monitor key writes if values have changed
    #[arg(short, long)]
    uniq: bool,
    /// Only monitor key appends
    #[arg(short = 'A', long)]
    append: bool,
    /// Monitor key changes with more complete accuracy
    #[arg(short, long)]
    full: bool,
    /// Display at most COUNT changes
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    count: u64,
    /// Return potentially large values in multiple responses.
    #[arg(short = 'S', long)]
    stream: bool,
    #[arg(required = true)]
    key: Vec<String>,
}

type Update = (String, Result<Option<Treeobj>, RpcError>);

impl Get {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let namespace = self.namespace.get(context).to_owned();
        if self.watch {
            return self.watch(flux, &namespace).await;
        }
        let snapshot = self.at.as_deref().map(snapshot).transpose()?;
        for key in &self.key {
            self.get(flux, &namespace, snapshot.as_ref(), key).await?;
        }
        Ok(0)
    }

    async fn get(
        &self,
        flux: &Client,
        namespace: &str,
        snapshot: Option<&Treeobj>,
        key: &str,
    ) -> Result<(), Failure> {
        let flags = self.flags();
        let failed = |e: RpcError| Failure::of(key, e.errno());
        if let Some(snapshot) = snapshot {
            let treeobj = kvs::lookup(flux, Root::Snapshot(snapshot), key, flags).await;
            return self.print(key, &treeobj.map_err(failed)?);
        }
        if self.stream {
            let mut stream = kvs::watch(flux, namespace, key, flags).map_err(failed)?;
            let mut any = false;
            while let Some(response) = stream.next().await.map_err(failed)? {
                self.print(key, &response.val)?;
                any = true;
            }
            if any && !self.raw && !self.treeobj {
                outln!();
            }
            return Ok(());
        }
        let treeobj = if self.waitcreate {
            kvs::wait_create(flux, namespace, key, flags).await
        } else {
            kvs::lookup(flux, Root::Namespace(namespace), key, flags).await
        };
        self.print(key, &treeobj.map_err(failed)?)
    }

    /// Show changes of all keys as they come, until there were enough.
    async fn watch(&self, flux: &Client, namespace: &str) -> Outcome {
        let (sink, mut updates) = mpsc::channel::<Update>(1);
        let mut streams = Vec::new();
        for key in &self.key {
            let stream = kvs::watch(flux, namespace, key, self.flags())
                .map_err(|e| Failure::of(key, e.errno()))?;
            let (enough, ended) = tokio::sync::oneshot::channel::<()>();
            tokio::spawn(forward(key.clone(), stream, sink.clone(), ended));
            streams.push(enough);
        }
        drop(sink);
        let mut count = 0;
        while let Some((key, update)) = updates.recv().await {
            let Some(treeobj) = update.map_err(|e| Failure::of(&key, e.errno()))? else {
                continue;
            };
            if self.count > 0 && count >= self.count {
                continue;
            }
            self.print(&key, &treeobj)?;
            count += 1;
            if self.count > 0 && count == self.count {
                // The streams end once their services have heard of it.
                for enough in streams.drain(..) {
                    let _ = enough.send(());
                }
            }
        }
        Ok(0)
    }

    fn flags(&self) -> u32 {
        let mut flags = 0;
        let watching = [
            (true, lookup::WATCH),
            (self.full, lookup::FULL),
            (self.uniq, lookup::UNIQ),
            (self.append, lookup::WATCH_APPEND),
        ];
        if self.watch {
            flags |= watching.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum::<u32>();
        }
        for (set, flag) in [
            (self.treeobj, lookup::TREEOBJ),
            (self.waitcreate, lookup::WAITCREATE),
            (self.stream, lookup::STREAM),
        ] {
            if set {
                flags |= flag;
            }
        }
        flags
    }

    fn print(&self, key: &str, treeobj: &Treeobj) -> Result<(), Failure> {
        if self.label {
            out!("{key}=");
        }
        if self.treeobj {
            outln!("{}", treeobj.encode().map_err(|e| Failure::of(key, e))?);
        } else {
            let value = kvs::value(treeobj).map_err(|e| Failure::of(key, e))?;
            output::emit_bytes(&value);
            // Of a value that is empty there is no line, unless it is one among others.
            if !self.raw && (self.watch || !(self.stream || value.is_empty())) {
                outln!();
            }
        }
        output::flush();
        Ok(())
    }
}

/// Hand on the responses of one stream, and end it when there were enough.
async fn forward(
    key: String,
    mut stream: Stream<LookupResponse>,
    sink: mpsc::Sender<Update>,
    mut enough: tokio::sync::oneshot::Receiver<()>,
) {
    loop {
        let update = tokio::select! {
            update = stream.next() => update,
            Ok(()) = &mut enough => {
                // Without a connection the stream ends all the same.
                let _ = stream.cancel::<kvs_watch::Cancel>();
                while let Ok(Some(_)) = stream.next().await {}
                return;
            }
        };
        let last = !matches!(update, Ok(Some(_)));
        let update = update.map(|response| response.map(|response| response.val));
        if sink.send((key.clone(), update)).await.is_err() || last {
            return;
        }
    }
}

/// The argument of `--at`.
pub(super) fn snapshot(text: &str) -> Result<Treeobj, Failure> {
    Treeobj::decode(text.as_bytes()).map_err(|e| Failure::of("--at", e))
}
