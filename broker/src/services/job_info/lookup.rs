//! `lookup`: values of a job, several at once.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Object;
use flux_protocol::rpc::job_info as rpc;
use flux_protocol::rpc::job_info::lookup as flags;
use serde_json::Value;

use super::{Context, JobInfo, authorize, kvs_read, update};
use crate::call::Call;
use crate::handle::Handle;

const KNOWN_FLAGS: i64 = (flags::JSON_DECODE | flags::CURRENT) as i64;
/// Keys whose values are single JSON objects, and may have updates in the eventlog.
const JSON_KEYS: [&str; 2] = ["jobspec", "R"];

impl JobInfo {
    pub(super) fn lookup(
        &mut self,
        context: &Context,
        request: rpc::LookupRequest,
        call: Call<Object>,
    ) {
        if request.flags & !KNOWN_FLAGS != 0 {
            let text = "lookup request rejected with invalid flag";
            return call.fail(Failure::new(Errno::EPROTO, text));
        }
        self.lookups += 1;
        let handle = context.handle().clone();
        let cred = call.cred();
        context.spawn(
            async move {
                authorize(&handle, cred, request.id).await.map_err(denied)?;
                look_up(&handle, &request).await
            },
            |_: &mut JobInfo, result| call.finish(result),
        );
    }
}

async fn look_up(handle: &Handle, request: &rpc::LookupRequest) -> Result<Object, Failure> {
    let has = |flag: u32| request.flags & i64::from(flag) != 0;
    let dir = request.id.kvs();
    let mut lookups = Vec::with_capacity(request.keys.len());
    for key in &request.keys {
        lookups.push(kvs_read::send_primary(handle, &format!("{dir}.{key}"))?);
    }
    let mut object = Object::new();
    object.insert("id".to_owned(), request.id.0.into());
    for (key, mut lookup) in request.keys.iter().zip(lookups) {
        let value = lookup.next().await.and_then(|response| kvs_read::text(response.val));
        let mut text = match value {
            Ok(text) => text,
            Err(failure) => return Err(missing(handle, &dir, failure, key).await),
        };
        if JSON_KEYS.contains(&key.as_str()) {
            if has(flags::CURRENT) {
                text = update::current(handle, request.id, key, &text).await?;
            }
            if has(flags::JSON_DECODE) {
                let value: Value = serde_json::from_str(&text)
                    .map_err(|error| Failure::new(Errno::EINVAL, format!("{key}: {error}")))?;
                object.insert(key.clone(), value);
                continue;
            }
        }
        object.insert(key.clone(), text.into());
    }
    Ok(object)
}

fn denied(failure: Failure) -> Failure {
    match failure.errno {
        Errno::EPERM => Failure::new(Errno::EPERM, "access is restricted to job/instance owner"),
        _ => failure,
    }
}

/// Is it the key that does not exist, or the whole job? Of a job that was purged, the directories
/// above its own are still there, as those of no id that was never given.
async fn missing(handle: &Handle, dir: &str, failure: Failure, key: &str) -> Failure {
    if failure.errno != Errno::ENOENT {
        return failure;
    }
    let above = dir.rsplit_once('.').map_or(dir, |(above, _)| above);
    let text = match kvs_read::treeobj(handle, above).await {
        Err(failure) if failure.errno == Errno::ENOENT => "invalid job id".to_owned(),
        _ => format!("{key}: key not found"),
    };
    Failure::new(Errno::ENOENT, text)
}
