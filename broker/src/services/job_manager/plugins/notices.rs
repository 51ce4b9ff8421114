//! What plugins do outside of calls: faults, restarts, timers.

use std::time::Duration;

use super::super::{Context, JobManager};
use crate::log::Severity;
use crate::plugin::types::{Event, Timer};
use crate::plugin::{CallError, Notice, NoticeKind};

impl JobManager {
    /// Hear of what the host has to tell, for as long as the service lives.
    pub(super) fn watch_notices(&mut self, context: &Context) {
        let Some(mut notices) = self.plugins.notices.take() else { return };
        let after = context.clone();
        context.spawn(
            async move {
                let notice = notices.recv().await;
                (notices, notice)
            },
            move |manager: &mut JobManager, (notices, notice)| {
                let Some(notice) = notice else { return };
                manager.plugins.notices = Some(notices);
                manager.take_notice(&after, notice);
                manager.watch_notices(&after);
            },
        );
    }

    fn take_notice(&mut self, context: &Context, notice: Notice) {
        let plugin = notice.plugin.to_string();
        match notice.what {
            // The host has logged them, in the plugin's name.
            NoticeKind::Fault(_) | NoticeKind::Quarantined => {}
            NoticeKind::Restarted => {
                context.log(Severity::Info, format!("plugin {plugin} runs again"));
                self.tell_lifetime(context, &plugin);
                self.release_held(context, &plugin);
                self.commands_tell(context, &plugin);
            }
            NoticeKind::Effects(effects) => {
                let place =
                    self.plugins.loaded.iter().position(|loaded| loaded.plugin.name() == plugin);
                let Some(place) = place else { return };
                let effects = effects.into_iter().map(|effect| (place, effect)).collect();
                self.apply_effects(context, effects);
            }
        }
    }

    /// Set a timer of a plugin; one with the same name is moved.
    pub(crate) fn set_timer(&mut self, context: &Context, plugin: &str, timer: Timer) {
        let key = (plugin.to_owned(), timer.name.clone());
        self.cancel_timer(plugin, &timer.name);
        let now = crate::time::unix_seconds(std::time::SystemTime::now());
        let wait = Duration::try_from_secs_f64((timer.at - now).max(0.0)).unwrap_or(Duration::MAX);
        let (after, name) = (context.clone(), plugin.to_owned());
        let task = context.spawn(tokio::time::sleep(wait), move |manager: &mut JobManager, ()| {
            manager.plugins.timers.remove(&(name.clone(), timer.name.clone()));
            if let Some(every) = timer.every.filter(|every| *every > 0.0) {
                let next = Timer { at: timer.at.max(now) + every, ..timer.clone() };
                manager.set_timer(&after, &name, next);
            }
            manager.call_one(&after, &name, Event::Timer(timer.name));
        });
        self.plugins.timers.insert(key, task);
    }

    pub(crate) fn cancel_timer(&mut self, plugin: &str, timer: &str) {
        let key = (plugin.to_owned(), timer.to_owned());
        if let Some(task) = self.plugins.timers.remove(&key) {
            task.abort();
        }
    }

    /// Call one plugin with what concerns it alone.
    pub(super) fn call_one(&mut self, context: &Context, plugin: &str, event: Event) {
        self.tell_plugin(context, plugin, event, |_| {});
    }

    /// As [`JobManager::call_one`]; `failed` when the plugin could not take it.
    pub(crate) fn tell_plugin(
        &mut self,
        context: &Context,
        plugin: &str,
        event: Event,
        failed: impl FnOnce(&mut JobManager) + 'static,
    ) {
        let place = self.plugins.loaded.iter().position(|l| l.plugin.name() == plugin);
        let loaded = place.and_then(|place| self.plugins.loaded.get(place).cloned());
        let (Some(place), Some(loaded)) = (place, loaded) else { return failed(self) };
        let after = context.clone();
        context.spawn(
            async move { loaded.plugin.handle(vec![event]).await },
            move |manager: &mut JobManager, answers| match answers.into_iter().next() {
                Some(Ok(answer)) => {
                    let effects =
                        answer.effects.into_iter().map(|effect| (place, effect)).collect();
                    manager.apply_effects(&after, effects);
                }
                Some(Err(error)) => {
                    // A fault is in the log already.
                    if !matches!(error, CallError::Fault(_)) {
                        after.log(Severity::Err, error.to_string());
                    }
                    failed(manager);
                }
                None => failed(manager),
            },
        );
    }
}
