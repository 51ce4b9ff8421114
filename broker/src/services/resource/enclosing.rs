//! Resources that an enclosing instance has given to the job that we are, and for how long.

use flux_client::{RpcError, Stream};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Object;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_info::{UpdateRequest, UpdateWatch};

use super::{Context, Inventory, Resource, hostlist};
use crate::log::Severity;
use crate::parent::Parent;

/// What we have, where an enclosing instance knows it and we are to believe it. Nothing where it
/// can't be told which broker has what: then the hardware is looked at.
pub(super) async fn inventory(
    context: &Context,
    rediscover: bool,
) -> Result<Option<Inventory>, Failure> {
    if rediscover {
        return Ok(None);
    }
    let Some(mut updates) = watch(context).await? else { return Ok(None) };
    let first = updates.next().await.map_err(|error| {
        Failure::new(error.errno(), format!("lookup R from enclosing instance KVS: {error}"))
    })?;
    let Some(set) = first.as_ref().map(decode).transpose()? else { return Ok(None) };
    Ok(Inventory::of_job(set, context.broker().size(), &hostlist(context)))
}

/// Take over the time limit of our job whenever it changes.
pub(super) fn follow(context: &Context) {
    let after = context.clone();
    let watched = context.clone();
    context.spawn(async move { watch(&watched).await }, move |_: &mut Resource, updates| {
        match updates {
            Ok(Some(updates)) => next(&after, updates),
            Ok(None) => {}
            Err(failure) => after.log(Severity::Err, failure.to_string()),
        }
    });
}

fn next(context: &Context, mut updates: Updates) {
    let after = context.clone();
    let waiting = async move { (updates.next().await, updates) };
    context.spawn(waiting, move |resource: &mut Resource, (update, updates)| match update {
        Ok(Some(update)) => {
            resource.parent_updated(&after, &update);
            next(&after, updates);
        }
        // Our job is over there, or the instance is.
        Ok(None) | Err(RpcError::Disconnected(_)) => {}
        Err(error) => after.log(Severity::Err, format!("failed to follow R: {error}")),
    });
}

impl Resource {
    fn parent_updated(&mut self, context: &Context, update: &Object) {
        let Ok(set) = decode(update) else {
            context.log(Severity::Err, "failed to unpack updated R expiration");
            return;
        };
        // Where the hardware is looked at, it may not be known yet.
        self.granted_until = set.expiration;
        let known = self.state.inventory.as_ref().map(|inventory| inventory.set.expiration);
        if known.is_some_and(|known| known != set.expiration)
            && let Err(failure) = self.set_expiration(context, set.expiration)
        {
            context.log(Severity::Err, format!("failed to update expiration: {failure}"));
        }
    }
}

/// R as it is and as it changes.
#[derive(Debug)]
struct Updates {
    stream: Stream<Object>,
}

impl Updates {
    async fn next(&mut self) -> Result<Option<Object>, RpcError> {
        self.stream.next().await
    }
}

async fn watch(context: &Context) -> Result<Option<Updates>, Failure> {
    let Some(parent) = Parent::open(context.broker().attrs()).await? else { return Ok(None) };
    let request = UpdateRequest { id: parent.id, key: "R".to_owned(), flags: 0 };
    let stream = parent.client.stream::<UpdateWatch>(Nodeid::ANY, &request).map_err(|error| {
        Failure::new(error.errno(), format!("error sending request to enclosing instance: {error}"))
    })?;
    Ok(Some(Updates { stream }))
}

fn decode(update: &Object) -> Result<ResourceSet, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let r = update.get("R").ok_or_else(|| invalid("no R from enclosing instance".to_owned()))?;
    ResourceSet::decode(&r.to_string()).map_err(|error| invalid(error.to_string()))
}
