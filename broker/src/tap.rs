//! Lets `module.trace` see the messages of modules; costs one look at a flag while nobody traces.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::SystemTime;

use flux_protocol::message::Message;

/// Whether the module received or sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Received,
    Sent,
}

/// A message that a module received or sent.
#[derive(Debug, Clone)]
pub struct Traced {
    pub way: Way,
    pub module: Rc<str>,
    pub time: SystemTime,
    pub message: Message,
}

type Listener = Rc<dyn Fn(Traced)>;

/// Where traced messages go; one for all modules of a broker.
#[derive(Default)]
pub struct Tracer {
    on: Cell<bool>,
    listener: RefCell<Option<Listener>>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("on", &self.on).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Give all messages of modules to `listener`, which must not send any itself.
    pub fn listen(&self, listener: impl Fn(Traced) + 'static) {
        *self.listener.borrow_mut() = Some(Rc::new(listener));
        self.on.set(true);
    }

    pub fn stop(&self) {
        self.on.set(false);
        *self.listener.borrow_mut() = None;
    }
}

/// The place of one module, or of nobody, at the tracer.
#[derive(Debug, Clone, Default)]
pub struct Tap {
    module: Option<Rc<str>>,
    tracer: Rc<Tracer>,
}

impl Tap {
    /// The same tracer for a module.
    pub fn of(&self, module: &str) -> Tap {
        Tap { module: Some(module.into()), tracer: self.tracer.clone() }
    }

    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    pub(crate) fn see(&self, way: Way, message: &Message) {
        if !self.tracer.on.get() {
            return;
        }
        let Some(module) = &self.module else { return };
        let listener = self.tracer.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(Traced {
                way,
                module: module.clone(),
                time: SystemTime::now(),
                message: message.clone(),
            });
        }
    }
}
