//! A new configuration: all plugins agree to it, or none has it.
//!
//! ```text
//! try out what is listed, when the list has changed
//! ask one after the other, in load order
//!   all agree:    the job manager takes it over, and the request is answered
//!   one refuses:  those before it get back what they had, and the request fails
//! ```
//!
//! Nobody waits for a plugin that takes long to agree but who asked, and who wants to change the
//! stack meanwhile.

use std::collections::VecDeque;
use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

use super::super::{Context, JobManager};
use super::{Loaded, listed};
use crate::config::Config;
use crate::log::Severity;
use crate::plugin::PluginHost;

/// Changes of the stack and of what it is configured with, one at a time and in order: what is
/// loaded while others are asked would not be asked.
#[derive(Default)]
pub(super) struct Changes {
    busy: bool,
    waiting: VecDeque<Change>,
}

type Change = Box<dyn FnOnce(&mut JobManager)>;

impl JobManager {
    /// Make a change as soon as no other is under way; it says when it is over
    /// ([`JobManager::changed_plugins`]).
    pub(super) fn change_plugins(&mut self, change: impl FnOnce(&mut JobManager) + 'static) {
        self.plugins.changes.waiting.push_back(Box::new(change));
        self.next_change();
    }

    pub(super) fn changed_plugins(&mut self) {
        self.plugins.changes.busy = false;
        self.next_change();
    }

    fn next_change(&mut self) {
        let changes = &mut self.plugins.changes;
        if changes.busy {
            return;
        }
        let Some(change) = changes.waiting.pop_front() else { return };
        changes.busy = true;
        change(self);
    }

    /// Ask all plugins whether they can do with a configuration; `then` is told what they have said,
    /// and has to take it over when they can.
    pub(in super::super) fn plugins_configure(
        &mut self,
        context: &Context,
        config: Rc<Config>,
        then: impl FnOnce(&mut JobManager, Result<(), Failure>) + 'static,
    ) {
        let after = context.clone();
        self.change_plugins(move |manager| {
            let (stack, old) = (manager.plugins.loaded.clone(), manager.plugins.config.clone());
            let (asking, new) = (after.clone(), config.clone());
            let mut host = manager.plugins.host.clone();
            host.set_config(config.object().clone());
            after.clone().spawn(
                async move {
                    would_start(&host, &old, &new).await?;
                    ask_all(&asking, &stack, &old, &new).await
                },
                move |manager: &mut JobManager, result| {
                    if result.is_ok() {
                        manager.plugins.host.set_config(config.object().clone());
                        manager.plugins.config = config;
                    }
                    then(manager, result);
                    manager.changed_plugins();
                },
            );
        });
    }

    /// What a plugin is configured with, which others may not have agreed to yet.
    pub(in super::super) fn config_of_plugin(&self, name: &str) -> Rc<Config> {
        let loaded = self.plugins.find_service(name);
        loaded.map_or(&self.plugins.config, |loaded| &loaded.config).clone()
    }

    fn plugin_has(&mut self, name: &str, config: Rc<Config>) {
        let loaded = self.plugins.loaded.iter_mut().find(|loaded| loaded.name == name);
        if let Some(loaded) = loaded {
            loaded.config = config;
        }
    }
}

/// What is listed takes effect at the next start, which must not be stopped by it.
async fn would_start(host: &PluginHost, old: &Config, new: &Config) -> Result<(), Failure> {
    if old.get("job-manager.plugins") == new.get("job-manager.plugins") {
        return Ok(());
    }
    match listed::mistakes(host, new).await.into_iter().next() {
        Some(mistake) => Err(Failure::new(Errno::EINVAL, mistake.text)),
        None => Ok(()),
    }
}

async fn ask_all(
    context: &Context,
    stack: &[Loaded],
    old: &Rc<Config>,
    new: &Rc<Config>,
) -> Result<(), Failure> {
    for (at, loaded) in stack.iter().enumerate() {
        let Err(text) = ask(loaded, new).await else {
            note(context, loaded, new);
            continue;
        };
        for agreed in stack.iter().take(at).rev() {
            match agreed.plugin.revert().await {
                Ok(()) => note(context, agreed, old),
                Err(error) => context.log(Severity::Err, format!("{}: {error}", agreed.name)),
            }
        }
        let text = format!("plugin {} {text}", loaded.name);
        return Err(Failure::new(Errno::EINVAL, text));
    }
    Ok(())
}

async fn ask(loaded: &Loaded, config: &Config) -> Result<(), String> {
    let conf = &loaded.plugin.facts().spec.conf;
    match loaded.plugin.configure(conf, config.object()).await {
        Ok(answer) => answer.map_err(|text| format!("refuses: {text}")),
        Err(error) => Err(format!(
            "could not be asked (flux jobtap remove {} does without it): {error}",
            loaded.name
        )),
    }
}

/// In order with what the plugin is asked next.
fn note(context: &Context, loaded: &Loaded, config: &Rc<Config>) {
    let (name, config) = (loaded.name.clone(), config.clone());
    context.later(move |manager: &mut JobManager| manager.plugin_has(&name, config));
}
