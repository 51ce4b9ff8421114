//! `resource.drain` and `resource.undrain`.

use std::time::SystemTime;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::resource as rpc;

use super::drain::Overwrite;
use super::state::Change;
use super::{Context, Resource, inventory};
use crate::call::Call;
use crate::log::Severity;
use crate::time;

impl Resource {
    pub(super) fn drain(
        &mut self,
        context: &Context,
        request: rpc::DrainRequest,
        call: Call<Empty>,
    ) {
        match self.drain_change(context, &request, &call) {
            Ok(change) => self.post_drain(context, change, Some(call)),
            Err(failure) => call.fail(failure),
        }
    }

    fn drain_change(
        &self,
        context: &Context,
        request: &rpc::DrainRequest,
        call: &Call<Empty>,
    ) -> Result<Change, Failure> {
        self.only_on_leader(context, call.request())?;
        let ranks = self.drain_targets(&request.targets)?;
        let overwrite = overwrite(request.mode.as_deref())
            .ok_or_else(|| Failure::new(Errno::EINVAL, "Invalid mode specified"))?;
        if request.mode.is_none() {
            self.requested_drain.may_drain(&ranks, &self.state.exclude)?;
        }
        Ok(Change::Drain {
            ranks,
            timestamp: time::unix_seconds(SystemTime::now()),
            reason: request.reason.as_deref().map(Into::into),
            overwrite,
        })
    }

    pub(super) fn undrain(
        &mut self,
        context: &Context,
        request: rpc::UndrainRequest,
        call: Call<Empty>,
    ) {
        match self.undrain_change(context, &request, &call) {
            Ok(change) => self.post_drain(context, change, Some(call)),
            Err(failure) => call.fail(failure),
        }
    }

    fn undrain_change(
        &self,
        context: &Context,
        request: &rpc::UndrainRequest,
        call: &Call<Empty>,
    ) -> Result<Change, Failure> {
        self.only_on_leader(context, call.request())?;
        let ranks = self.drain_targets(&request.targets)?;
        let mode = request.mode.as_deref();
        let overwrite = overwrite(mode).ok_or_else(|| {
            let mode = mode.unwrap_or_default();
            Failure::new(Errno::EINVAL, format!("invalid undrain mode '{mode}' specified"))
        })?;
        if mode.is_none() {
            self.requested_drain.may_undrain(&ranks)?;
        }
        let reason = request.reason.as_deref().map(Into::into);
        Ok(Change::Undrain { ranks, reason, overwrite })
    }

    /// Drain this rank for what is wrong with it.
    pub(super) fn drain_self(&mut self, context: &Context, reason: &str) {
        let change = Change::Drain {
            ranks: Idset::from_range(context.rank(), context.rank()),
            timestamp: time::unix_seconds(SystemTime::now()),
            reason: Some(reason.into()),
            overwrite: Overwrite::No,
        };
        self.post_drain(context, change, None);
    }

    /// Post a drain or undrain, and log it.
    pub(super) fn post_drain(
        &mut self,
        context: &Context,
        change: Change,
        call: Option<Call<Empty>>,
    ) {
        let what = match &change {
            Change::Drain { ranks, reason, overwrite, .. } => ("drain", ranks, reason, overwrite),
            Change::Undrain { ranks, reason, overwrite } => ("undrain", ranks, reason, overwrite),
            _ => return,
        };
        let (name, ranks, reason, overwrite) = what;
        let text = format!(
            "{name} idset={ranks} nodelist={} overwrite={} reason={}",
            self.state.hosts.of(ranks),
            *overwrite as i64,
            reason.as_deref().unwrap_or_default()
        );
        context.log(Severity::Info, text);
        self.post(context, change, call);
    }

    fn drain_targets(&self, text: &str) -> Result<Idset, Failure> {
        let ranks = inventory::targets(text, self.state.inventory.as_ref())?;
        match ranks.last() {
            None => Err(Failure::new(Errno::EINVAL, "idset is empty")),
            Some(last) if last >= self.state.size => {
                Err(Failure::new(Errno::EINVAL, "idset is out of range"))
            }
            Some(_) => Ok(ranks),
        }
    }
}

/// None: there is no such mode.
fn overwrite(mode: Option<&str>) -> Option<Overwrite> {
    Some(match mode {
        None | Some("update") => Overwrite::No,
        Some("overwrite") => Overwrite::Reason,
        Some("force-overwrite") => Overwrite::ReasonAndTime,
        Some(_) => return None,
    })
}
