//! A plugin that nobody has asked for a while: its instance is given up, and made anew when it is
//! asked again. That takes some microseconds; the memory of an instance may be 64 MiB.

use super::Worker;
use crate::plugin::fault::CallError;
use crate::plugin::manifest::Kind;
use crate::plugin::v1::types::StartReason;

impl Worker {
    /// Give up the instance; what it wants to keep is kept. False: it has none, or it is one that
    /// may have something to do at any time.
    pub(super) fn rest(&mut self) -> bool {
        let asked_only = matches!(self.manifest.kind, Kind::Validator | Kind::Frobnicator);
        if !asked_only || self.instance.is_none() {
            return false;
        }
        let Ok(saved) = self.call("plugin.save", |exports| Some(exports.save), ()) else {
            // That was a fault, and is dealt with as one.
            return false;
        };
        self.instance = None;
        self.context.saved = Some(saved).filter(|saved| !saved.is_empty());
        self.rests = true;
        true
    }

    /// Make the instance again.
    pub(super) fn wake(&mut self) -> Result<(), CallError> {
        self.rests = false;
        self.context.reason = StartReason::Load;
        let started = self.start();
        self.context.saved = None;
        started
    }
}
