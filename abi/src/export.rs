//! Between the traits and the generated exports. An export macro makes a [`Slot`]: a type whose
//! functions the module exports, and which keeps the one instance of the plugin.

use crate::bindings::exports::flux::plugin::{
    callbacks, frobnication, lifecycle, scheduling, validation,
};
use crate::types::{
    Answer, Change, Context, Decision, Depth, Edit, Event, Level, Pass, Submission, Verdict,
};
use crate::{Effects, Frobnicator, Jobtap, Plugin as _, Scheduler, Validator, host};
use std::cell::RefCell;
use std::sync::Once;

/// Where the instance of a plugin lives.
pub trait Slot: 'static {
    /// The author's type.
    type Plugin: crate::Plugin;

    /// Gives access to it; none before `init`.
    fn with<T>(f: impl FnOnce(&RefCell<Option<Self::Plugin>>) -> T) -> T;
}

/// Starts the plugin. Panics are logged from here on, which the trap alone would not explain.
fn init<S: Slot>(context: &Context) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| host::log(Level::Crit, &panic.to_string())));
    });
    let plugin = <S::Plugin as crate::Plugin>::init(context)?;
    S::with(|slot| slot.replace(Some(plugin)));
    Ok(())
}

/// Calls into the plugin. The broker calls `init` first; who does not meets the panic.
#[allow(clippy::expect_used)]
fn call<S: Slot, T>(f: impl FnOnce(&mut S::Plugin) -> T) -> T {
    S::with(|slot| f(slot.borrow_mut().as_mut().expect("init is called first")))
}

impl<S: Slot> lifecycle::Guest for S {
    fn init(context: Context) -> Result<(), String> {
        init::<S>(&context)
    }

    fn configure(config: String, broker_config: String) -> Result<(), String> {
        call::<S, _>(|plugin| plugin.configure(&config, &broker_config))
    }

    fn query() -> String {
        call::<S, _>(|plugin| plugin.query())
    }

    fn save() -> Vec<u8> {
        call::<S, _>(|plugin| plugin.save())
    }
}

impl<S: Slot> callbacks::Guest for S
where
    S::Plugin: Jobtap,
{
    fn handle(events: Vec<Event>) -> Vec<Answer> {
        let answer = |plugin: &mut S::Plugin, event| {
            let mut effects = Effects::default();
            let reply = plugin.handle(event, &mut effects);
            Answer { reply, effects: effects.into_list() }
        };
        call::<S, _>(|plugin| events.into_iter().map(|event| answer(plugin, event)).collect())
    }
}

impl<S: Slot> scheduling::Guest for S
where
    S::Plugin: Scheduler,
{
    fn ready() -> Depth {
        call::<S, _>(|plugin| plugin.ready())
    }

    fn update(changes: Vec<Change>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        call::<S, _>(|plugin| {
            changes.into_iter().for_each(|change| plugin.update(change, &mut decisions));
        });
        decisions
    }

    fn schedule(seconds: f64) -> Pass {
        call::<S, _>(|plugin| plugin.schedule(seconds))
    }
}

impl<S: Slot> validation::Guest for S
where
    S::Plugin: Validator,
{
    fn validate(jobs: Vec<Submission>) -> Vec<Verdict> {
        call::<S, _>(|plugin| jobs.iter().map(|job| plugin.validate(job)).collect())
    }
}

impl<S: Slot> frobnication::Guest for S
where
    S::Plugin: Frobnicator,
{
    fn frobnicate(jobs: Vec<Submission>) -> Vec<Edit> {
        call::<S, _>(|plugin| jobs.iter().map(|job| plugin.frobnicate(job)).collect())
    }
}
