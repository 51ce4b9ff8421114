//! What every service answers: ping, stats, rusage, debug, config-reload, disconnect.

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Message;
use flux_protocol::payload::{Empty, Object, Payload};
use flux_protocol::rpc::Who;
use flux_protocol::rpc::common as rpc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};

use crate::call::{Call, Sender};
use crate::config::Config;
use crate::context::Context;
use crate::loaded::Counts;
use crate::service::Service;

/// Answer a request for one of the common methods; give it back when it is none of them.
pub(crate) fn dispatch<S: Service>(
    service: &mut S,
    context: &Context<S>,
    counts: &Counts,
    message: Message,
) -> Result<(), Message> {
    let who = match message.topic.method() {
        "ping" | "rusage" => Who::User,
        "stats-get" => S::STATS,
        "stats-clear" | "debug" | "config-reload" | "config-sync" | "config-update" => Who::Owner,
        "disconnect" => {
            service.disconnect(context, &Sender::of(&message));
            return Ok(());
        }
        _ => return Err(message),
    };
    if !S::IS_MODULE {
        return Err(message);
    }
    let call: Call<Value> = Call::new(context.router().clone(), message);
    if !who.admits(call.cred()) {
        call.fail(Failure::new(Errno::EPERM, who.refusal()));
        return Ok(());
    }
    let payload = call.request().payload.clone();
    let result = match call.request().topic.method() {
        "ping" => ping(context, call.request()),
        "rusage" => rusage(payload.as_ref()),
        "stats-get" if !service.shows_stats(call.cred()) => Err(Errno::EPERM.into()),
        "stats-get" => Ok(service.stats(context).unwrap_or_else(|| message_counts(counts))),
        "stats-clear" => {
            service.clear_stats();
            counts.clear();
            return reply_empty(call);
        }
        "debug" => debug(counts, payload.as_ref()),
        _ => {
            config_reload(service, context, call.into_request());
            return Ok(());
        }
    };
    call.finish(result);
    Ok(())
}

fn reply_empty(call: Call<Value>) -> Result<(), Message> {
    call.reply_raw(None);
    Ok(())
}

/// The request's own keys, and where the request came from.
fn ping<S: Service>(context: &Context<S>, message: &Message) -> Result<Value, Failure> {
    let mut object = Object::decode(message.payload.as_ref())?;
    let hops = message.routes.iter().chain(std::iter::once(context.router().uuid()));
    let route: Vec<String> =
        hops.map(|hop| String::from_utf8_lossy(hop.get(..8).unwrap_or(hop)).into_owned()).collect();
    object.insert("route".to_owned(), json!(route.join("!")));
    object.insert("userid".to_owned(), json!(message.cred.userid));
    object.insert("rolemask".to_owned(), json!(message.cred.rolemask.0));
    object.insert("rank".to_owned(), json!(context.rank()));
    Ok(Value::Object(object))
}

fn rusage(payload: Option<&Bytes>) -> Result<Value, Failure> {
    // The payload may be missing.
    let request = match payload {
        Some(_) => rpc::RusageRequest::decode(payload)?,
        None => rpc::RusageRequest { who: None },
    };
    let who = match request.who.as_deref() {
        None | Some("self") => UsageWho::RUSAGE_SELF,
        Some("children") => UsageWho::RUSAGE_CHILDREN,
        Some("thread") => UsageWho::RUSAGE_THREAD,
        Some(other) => {
            return Err(Failure::new(Errno::EINVAL, format!("{other} is unsupported")));
        }
    };
    let usage = getrusage(who).map_err(std::io::Error::from)?;
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    let response = rpc::RusageResponse {
        utime: seconds(usage.user_time()),
        stime: seconds(usage.system_time()),
        maxrss: usage.max_rss(),
        ixrss: usage.shared_integral(),
        idrss: usage.unshared_data_integral(),
        isrss: usage.unshared_stack_integral(),
        minflt: usage.minor_page_faults(),
        majflt: usage.major_page_faults(),
        nswap: usage.full_swaps(),
        inblock: usage.block_reads(),
        oublock: usage.block_writes(),
        msgsnd: usage.ipc_sends(),
        msgrcv: usage.ipc_receives(),
        nsignals: usage.signals(),
        nvcsw: usage.voluntary_context_switches(),
        nivcsw: usage.involuntary_context_switches(),
    };
    serde_json::to_value(response).map_err(|_| Errno::EIO.into())
}

fn message_counts(counts: &Counts) -> Value {
    let [request, response, event, control] = &counts.received;
    json!({
        "tx": {"request": 0, "response": 0, "event": 0, "control": 0},
        "rx": {
            "request": request.get(),
            "response": response.get(),
            "event": event.get(),
            "control": control.get(),
        },
    })
}

/// Debug flags are for a developer's own use of a service; none of ours has any that stay.
fn debug(counts: &Counts, payload: Option<&Bytes>) -> Result<Value, Failure> {
    let request = rpc::DebugRequest::decode(payload)?;
    let flags = counts.debug_flags.get();
    let flags = match request.op.as_str() {
        "setbit" => flags | request.flags,
        "clrbit" => flags & !request.flags,
        "set" => request.flags,
        "clr" => 0,
        _ => return Err(Errno::EPROTO.into()),
    };
    counts.debug_flags.set(flags);
    Ok(json!({ "flags": flags }))
}

fn config_reload<S: Service>(service: &mut S, context: &Context<S>, request: Message) {
    let call: Call<Empty> = Call::new(context.router().clone(), request);
    match Object::decode(call.request().payload.as_ref()) {
        Ok(object) => service.reconfigure(context, Config::from_object(object), call),
        Err(_) => {
            let text = S::RELOAD_REFUSAL.replace("{topic}", &call.request().topic);
            let text = (!text.is_empty()).then_some(text);
            call.fail(Failure { errno: Errno::EPROTO, text });
        }
    }
}
