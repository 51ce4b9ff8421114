//! A plugin is asked what it thinks of another configuration, and has it if it agrees. When another
//! plugin refuses it, this one gets back what it had.

use super::Worker;
use crate::plugin::fault::CallError;
use crate::plugin::v1::types::Level;

/// What a plugin is configured with: its own configuration, and the broker's tables that it sees.
#[derive(Debug, Clone)]
pub(in crate::plugin) struct Settings {
    own: String,
    broker: String,
}

impl Worker {
    /// Propose a configuration; the inner error is the plugin's refusal.
    pub(super) fn configure(
        &mut self,
        own: String,
        broker: String,
    ) -> Result<Result<(), String>, CallError> {
        self.former = None;
        let proposed = Settings { own, broker };
        if self.instance.is_none() && !self.rests {
            return self.start_with(proposed);
        }
        let outcome = self.propose(&proposed)?;
        if outcome.is_ok() {
            self.former = Some(self.put_settings(proposed));
        }
        Ok(outcome)
    }

    /// One that is down is asked by starting it. One in quarantine is asked when it is re-armed:
    /// what it may be there for is the configuration that it has.
    fn start_with(&mut self, proposed: Settings) -> Result<Result<(), String>, CallError> {
        let former = self.put_settings(proposed);
        if self.quarantined() {
            self.former = Some(former);
            return Ok(Ok(()));
        }
        self.impatient = true;
        let started = self.ensure();
        self.impatient = false;
        if let Err(error) = started {
            self.put_settings(former);
            return match error {
                CallError::Init { reason, .. } => Ok(Err(reason)),
                error => Err(error),
            };
        }
        self.former = Some(former);
        Ok(Ok(()))
    }

    /// Give back what it had before it agreed to what it has now. One that does not take that back
    /// is started again with it by the next call.
    pub(super) fn revert(&mut self) {
        let Some(former) = self.former.take() else { return };
        if self.instance.is_some() {
            let refusal = match self.propose(&former) {
                Ok(Ok(())) => None,
                Ok(Err(text)) => Some(text),
                Err(error) => Some(error.to_string()),
            };
            if let Some(text) = refusal {
                let text = format!("started again with the configuration it had: {text}");
                self.program.log.line(&self.program.plugin, Level::Warning, &text);
                self.instance = None;
            }
        }
        self.put_settings(former);
    }

    fn propose(&mut self, proposed: &Settings) -> Result<Result<(), String>, CallError> {
        let params = (proposed.own.clone(), proposed.broker.clone());
        self.call("conf.update", |exports| Some(exports.configure), params)
    }

    /// What it is started with from now on; what it was before.
    fn put_settings(&mut self, new: Settings) -> Settings {
        Settings {
            own: std::mem::replace(&mut self.context.config, new.own),
            broker: std::mem::replace(&mut self.context.broker_config, new.broker),
        }
    }
}
