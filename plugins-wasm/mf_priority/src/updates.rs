//! `flux update` of a job's queue or bank.

use crate::{MfPriority, unknown};
use flux_plugin::prelude::*;
use flux_plugin::types::{JobUpdated, UpdateAllowed, UpdateRequest};
use serde_json::Value;

const QUEUE: &str = "attributes.system.queue";
const BANK: &str = "attributes.system.bank";

impl MfPriority {
    pub(crate) fn allow_update(&self, request: &UpdateRequest) -> Reply {
        let value: Value = serde_json::from_str(&request.value).unwrap_or_default();
        let Some(value) = value.as_str() else { return refusal("unable to unpack plugin args") };
        let outcome = match request.key.as_str() {
            QUEUE => self.check_new_queue(&request.job, value),
            BANK => self.check_bank(&request.job, value),
            _ => return Reply::Pass,
        };
        match outcome {
            Ok(()) => {
                Reply::Allow(UpdateAllowed { validated: false, feasibility: false, updates: None })
            }
            Err(text) => refusal(text),
        }
    }

    fn check_new_queue(&self, job: &Job, queue: &str) -> Result<(), String> {
        let association = self.data.association(job.userid, job.bank.as_deref());
        let (_, association) = association.ok_or_else(|| unknown(job))?;
        self.check_queue(association, queue)
    }

    fn check_bank(&self, job: &Job, bank: &str) -> Result<(), String> {
        let Some((key, association)) = self.data.association(job.userid, Some(bank)) else {
            return Err(match self.data.is_empty() {
                true => "update_bank: plugin still waiting on flux-accounting data".to_owned(),
                false => format!(
                    "update_bank: cannot find flux-accounting entry for uid/bank: {}/{bank}",
                    job.userid
                ),
            });
        };
        if self.is_full(&key, association) {
            return Err("new bank is already at max-active-jobs limit".to_owned());
        }
        let limit = association.max_running_jobs;
        if limit > 0 && self.ledger.total(&key).committed().jobs >= limit {
            // A job does not go back to DEPEND, where it would have to wait.
            return Err(format!(
                "updating to bank {bank} while it is already at max-run-jobs limit is not \
                 allowed; try again later"
            ));
        }
        Ok(())
    }

    /// The job counts for another association, or in another queue.
    pub(crate) fn updated(&mut self, update: &JobUpdated, effects: &mut Effects) {
        let updates: Value = serde_json::from_str(&update.updates).unwrap_or_default();
        let text = |key: &str| updates.get(key).and_then(Value::as_str);
        let id = update.job.id;
        let Some(before) = self.ledger.get(id).map(|record| record.key.clone()) else { return };
        if let Some(bank) = text(BANK).filter(|bank| *bank != before.1) {
            let Some((key, _)) = self.data.association(update.job.userid, Some(bank)) else {
                effects.raise(id, crate::NAME, 0, format!("job.update: {}", unknown(&update.job)));
                return;
            };
            self.ledger.change(id, |record| {
                record.key = key;
                record.fairshare = None;
            });
            self.release(&before, effects);
        }
        if let Some(queue) = text(QUEUE) {
            self.ledger.change(id, |record| record.queue = queue.to_owned());
        }
        if text(BANK).or(text(QUEUE)).is_some() {
            effects.reprioritize(vec![id]);
        }
    }
}

fn refusal(text: impl Into<String>) -> Reply {
    Reply::Refuse(refuse_with(errno::EINVAL, text))
}
