//! The life of a broker: its state, its initial program, and what it exits with.

use std::cell::Cell;
use std::rc::Rc;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::attrs::Attrs;
use crate::peers::Peers;
use crate::rc::script::Script;
use crate::state::State;
use crate::systemd::Systemd;

/// What lasts from the broker's start to its end beside the state itself.
pub struct Life {
    peers: Rc<dyn Peers>,
    state: watch::Sender<State>,
    /// The command line of the initial program; none at other ranks than 0.
    initial_program: Option<Script>,
    /// The initial program, or another script, while it runs.
    running: Cell<Option<Running>>,
    exit_code: Cell<u8>,
    /// Tells systemd not to start the broker again; stands above the exit code.
    norestart_code: Cell<Option<u8>>,
    signals: tokio::sync::Mutex<Signals>,
    systemd: Option<Systemd>,
}

/// A process, and whether its group is its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) own_group: bool,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    alarm: tokio::signal::unix::Signal,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("exit_code", &self.exit_code).finish_non_exhaustive()
    }
}

impl Life {
    pub fn new(
        attrs: &Attrs,
        peers: Rc<dyn Peers>,
        initial_program: Option<Script>,
    ) -> std::io::Result<Rc<Life>> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Rc::new(Life {
            peers,
            state: watch::Sender::new(State::None),
            initial_program,
            running: Cell::new(None),
            exit_code: Cell::new(0),
            norestart_code: Cell::new(None),
            signals: tokio::sync::Mutex::new(Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
                quit: signal(SignalKind::quit())?,
                alarm: signal(SignalKind::alarm())?,
            }),
            systemd: Systemd::new(attrs),
        }))
    }

    pub fn peers(&self) -> &Rc<dyn Peers> {
        &self.peers
    }

    pub(crate) fn state_sender(&self) -> watch::Sender<State> {
        self.state.clone()
    }

    /// To wait for a state from outside of the service.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What the broker process exits with.
    pub fn exit_code(&self) -> u8 {
        self.norestart_code.get().unwrap_or(self.exit_code.get())
    }

    /// The broker is to stay down: it is shut down, or would fail again in the same way. Where
    /// `broker.exit-norestart` is set, that is the exit code.
    pub fn stay_down(&self, attrs: &Attrs) {
        if let Some(code) = attrs.parse("broker.exit-norestart") {
            self.norestart_code.set(Some(code));
        }
    }

    /// The broker has failed, whatever else happens.
    pub fn fail(&self) {
        if self.exit_code.get() == 0 {
            self.exit_code.set(1);
        }
    }

    /// The next signal that asks for an end.
    pub(crate) async fn signal(&self) -> &'static str {
        let mut signals = self.signals.lock().await;
        let Signals { terminate, interrupt, hangup, quit, alarm } = &mut *signals;
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => "SIGHUP",
            _ = quit.recv() => "SIGQUIT",
            _ = alarm.recv() => "SIGALRM",
        }
    }

    /// False when no script runs.
    pub(crate) fn hang_up_script(&self) -> bool {
        let Some(running) = self.running.get() else { return false };
        let sent = if running.own_group {
            killpg(running.pid, Signal::SIGHUP)
        } else {
            kill(running.pid, Signal::SIGHUP)
        };
        sent.is_ok()
    }

    /// The command line of the initial program; none at other ranks than 0.
    pub(crate) fn initial_program(&self) -> Option<&Script> {
        self.initial_program.as_ref()
    }

    pub(crate) fn set_running(&self, running: Option<Running>) {
        self.running.set(running);
    }

    pub(crate) fn set_exit_code(&self, code: u8) {
        self.exit_code.set(code);
    }

    pub(crate) fn systemd(&self) -> Option<&Systemd> {
        self.systemd.as_ref()
    }
}
