//! Hosts of our own for tests of an instance on several of them: each has a network namespace, a
//! name, an `/etc/hosts`, and a cable to a switch that can be pulled out.
//!
//! It takes root and the right to make namespaces; without these [`network`] says why not, and the
//! test that asked is skipped. Nothing of the machine's own network is touched, and networks of
//! tests that run at the same time know nothing of each other. Build the workspace first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod instance;
mod ip;
mod machine;
mod sys;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub use instance::{Instance, LIMIT, until};
pub use machine::{Machine, machine};

/// What all names begin with that tests give to namespaces.
const PREFIX: &str = "fluxtest";

/// Hosts `n1`, `n2` and so on, at a switch; gone when dropped.
#[derive(Debug)]
pub struct Network {
    /// Of no other network on this machine.
    name: String,
    size: usize,
}

/// The hosts, or nothing where the test is to be skipped.
pub fn network(size: usize) -> Option<Network> {
    match Network::new(size) {
        Ok(network) => Some(network),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

impl Network {
    pub fn new(size: usize) -> Result<Network, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if sys::effective_uid() != 0 {
            return Err("needs root, for network namespaces".to_owned());
        }
        ip::sweep(PREFIX);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{next}", std::process::id());
        let network = Network { name, size };
        network.plug_in()?;
        Ok(network)
    }

    fn plug_in(&self) -> Result<(), String> {
        let switch = self.switch();
        ip::run(&["netns", "add", &switch])?;
        ip::run(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip::run(&["-n", &switch, "link", "set", "br0", "up"])?;
        let table: String = (0..self.size)
            .map(|host| format!("{} {}\n", self.address(host), self.host(host)))
            .collect();
        for host in 0..self.size {
            let (space, port) = (self.space(host), port(host));
            ip::run(&["netns", "add", &space])?;
            ip::write_hosts(&space, &format!("127.0.0.1 localhost\n{table}"))?;
            ip::run(&["-n", &space, "link", "set", "lo", "up"])?;
            ip::run(&[
                "link", "add", &port, "netns", &switch, "type", "veth", "peer", "name", "eth0",
                "netns", &space,
            ])?;
            ip::run(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            let address = format!("{}/24", self.address(host));
            ip::run(&["-n", &space, "address", "add", &address, "dev", "eth0"])?;
            ip::run(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// A host's name, which the other hosts can resolve.
    pub fn host(&self, host: usize) -> String {
        format!("n{}", host + 1)
    }

    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// Pull the cable of a host out of the switch.
    pub fn cut(&self, host: usize) {
        ip::run(&["-n", &self.switch(), "link", "set", &port(host), "down"]).unwrap();
    }

    /// Put it in again.
    pub fn mend(&self, host: usize) {
        ip::run(&["-n", &self.switch(), "link", "set", &port(host), "up"]).unwrap();
    }

    /// A command on a host. Its process is the program's own.
    pub fn command(&self, host: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(host), "unshare", "--uts", "sh", "-c"]);
        command.args(["hostname \"$0\" && exec \"$@\"", &self.host(host)]).arg(program);
        command
    }

    fn space(&self, host: usize) -> String {
        format!("{}-n{}", self.name, host + 1)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.size {
            ip::remove(&self.space(host));
        }
        ip::remove(&self.switch());
    }
}

/// The switch's end of a host's cable.
fn port(host: usize) -> String {
    format!("port{}", host + 1)
}

/// `TCP_USER_TIMEOUT` in milliseconds of each connected TCP socket of a process; 0 is the system's
/// default.
pub fn user_timeouts(pid: u32) -> Vec<u32> {
    sys::user_timeouts(pid).unwrap()
}

/// Send a signal to a process that is ours.
pub fn signal(pid: u32, signal: i32) {
    sys::signal(pid, signal).unwrap();
}
