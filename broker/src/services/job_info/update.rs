//! `update-lookup` and `update-watch`: jobspec and R with the updates of the eventlog applied.

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::{self, Event};
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Object;
use flux_protocol::rpc::job_info as rpc;
use flux_protocol::rpc::kvs;
use serde_json::{Map, Value};

use super::{Context, JobInfo, Kind, authorize, kvs_read};
use crate::call::Call;
use crate::handle::Handle;
use crate::jpath;

impl JobInfo {
    pub(super) fn update_lookup(
        &mut self,
        context: &Context,
        request: rpc::UpdateRequest,
        call: Call<Object>,
    ) {
        if let Err(failure) = check(&request, "update-lookup") {
            return call.fail(failure);
        }
        let handle = context.handle().clone();
        let cred = call.cred();
        context.spawn(
            async move {
                authorize(&handle, cred, request.id).await?;
                let key = format!("{}.{}", request.id.kvs(), request.key);
                let text = kvs_read::primary(&handle, &key).await?;
                let text = current(&handle, request.id, &request.key, &text).await?;
                let mut object = Object::new();
                object.insert("id".to_owned(), request.id.0.into());
                object.insert(request.key, parse(&text)?);
                Ok(object)
            },
            |_: &mut JobInfo, result| call.finish(result),
        );
    }

    pub(super) fn update_watch(
        &mut self,
        context: &Context,
        request: rpc::UpdateRequest,
        call: Call<Object>,
    ) {
        if let Err(failure) = check(&request, "update-watch") {
            return call.fail(failure);
        }
        let handle = context.handle().clone();
        let cred = call.cred();
        self.updates.open(
            context,
            call,
            Kind::Main,
            |info| &mut info.updates,
            |send| async move {
                let result = match authorize(&handle, cred, request.id).await {
                    Ok(()) => watch(&handle, &request, &*send).await,
                    Err(failure) => Err(failure),
                };
                result.err().unwrap_or_else(|| Errno::ENODATA.into())
            },
        );
    }
}

fn check(request: &rpc::UpdateRequest, method: &str) -> Result<(), Failure> {
    if request.flags != 0 {
        return Err(Failure::new(
            Errno::EPROTO,
            format!("{method} request rejected with invalid flag"),
        ));
    }
    match request.key.as_str() {
        "R" | "jobspec" => Ok(()),
        _ => Err(Failure::new(Errno::EINVAL, format!("{method} unsupported key specified"))),
    }
}

/// The value as it is now, then again after each update, until the job is over. ENOENT when the job
/// has no such value: R is there once it has resources.
async fn watch(
    handle: &Handle,
    request: &rpc::UpdateRequest,
    send: &dyn Fn(Object),
) -> Result<(), Failure> {
    let dir = request.id.kvs();
    let send = |value: &Value| send(Map::from_iter([(request.key.clone(), value.clone())]));
    let key = format!("{dir}.eventlog");
    let text = kvs_read::primary(handle, &key).await?;
    let mut value = parse(&kvs_read::primary(handle, &format!("{dir}.{}", request.key)).await?)?;
    let mut known = 0;
    for event in eventlog::events(&text).filter_map(Result::ok) {
        apply(&request.key, &mut value, &event);
        known += usize::from(is_update(&request.key, &event));
    }
    send(&value);
    if ends(&text) {
        return Ok(());
    }
    // From its beginning again, in as many parts as it was written in.
    let mut log = kvs_read::follow(handle, kvs::PRIMARY, &key, false)?;
    loop {
        let text = log.next().await?;
        for event in eventlog::events(&text).filter_map(Result::ok) {
            if !is_update(&request.key, &event) {
                continue;
            }
            match known.checked_sub(1) {
                Some(fewer) => known = fewer,
                None => {
                    apply(&request.key, &mut value, &event);
                    send(&value);
                }
            }
        }
        if ends(&text) {
            return Ok(());
        }
    }
}

fn ends(text: &str) -> bool {
    eventlog::events(text).any(|event| event.is_ok_and(|event| event.name == "clean"))
}

/// The text of jobspec or R as updates in the eventlog have left it.
pub(super) async fn current(
    handle: &Handle,
    id: JobId,
    key: &str,
    text: &str,
) -> Result<String, Failure> {
    let log = kvs_read::primary(handle, &format!("{}.eventlog", id.kvs())).await?;
    let mut value = parse(text)?;
    let mut changed = false;
    for event in eventlog::events(&log).filter_map(Result::ok) {
        changed |= apply(key, &mut value, &event);
    }
    Ok(if changed { value.to_string() } else { text.to_owned() })
}

fn is_update(key: &str, event: &Event) -> bool {
    let name = match key {
        "R" => "resource-update",
        _ => "jobspec-update",
    };
    event.name == name && event.context.is_some()
}

/// True when the event changes the value.
fn apply(key: &str, value: &mut Value, event: &Event) -> bool {
    if !is_update(key, event) {
        return false;
    }
    let Ok(updates) = event.context_as::<Map<String, Value>>() else { return false };
    for (path, new) in updates {
        match key {
            "R" => jpath::set(value, &format!("execution.{path}"), new),
            _ => jpath::set(value, &path, new),
        }
    }
    true
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
}
