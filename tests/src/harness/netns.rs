//! Several hosts on one machine: network namespaces joined by veth pairs to a bridge that stands in a namespace of
//! its own, so that no firewall rule of this machine has a say.
//!
//! Programs run inside with `nsenter --net=`, which changes the network and nothing else: their mounts stay visible
//! to the test (`ip netns exec` would give them a mount table of their own).
//!
//! Invariants
//! * Names hold the process id of their maker; what a killed run left is swept by the next.
//! * Dropping the [`Net`] removes every namespace, and with them links and addresses.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::program::{self, command};

const PREFIX: &str = "atelier";
static NETS: AtomicU32 = AtomicU32::new(0);

/// One switch and the hosts plugged into it.
#[derive(Debug)]
pub struct Net {
    name: String,
    hosts: Cell<u8>,
}

/// One host: a network of its own.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    switch: String,
    port: String,
    address: Ipv4Addr,
}

/// Bytes that went through a host's network card.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wire {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

impl Wire {
    /// What went over the wire since `earlier`, both ways together.
    pub fn since(self, earlier: Wire) -> u64 {
        (self.received - earlier.received) + (self.sent - earlier.sent)
    }
}

impl Net {
    /// A switch without hosts.
    pub fn new() -> Result<Net> {
        sweep();
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let net =
            Net { name: format!("{PREFIX}-{}-{number}", std::process::id()), hosts: Cell::new(0) };
        let switch = net.switch();
        program::ok(&mut command("ip", ["netns", "add", &switch]))?;
        let bridge = "mcast_snooping 0 forward_delay 0 stp_state 0";
        ip(&switch, &format!("link add br0 type bridge {bridge}"))?;
        ip(&switch, "link set br0 up")?;
        Ok(net)
    }

    /// Plugs in one more host.
    pub fn host(&self) -> Result<Host> {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let host = Host {
            namespace: format!("{}-h{number}", self.name),
            switch: self.switch(),
            port: format!("port{number}"),
            address: Ipv4Addr::new(10, 77, 0, number),
        };
        program::ok(&mut command("ip", ["netns", "add", &host.namespace]))?;
        let (switch, inside) = (&host.switch, &host.namespace);
        ip(switch, &format!("link add {} type veth peer name eth0 netns {inside}", host.port))?;
        ip(switch, &format!("link set {} master br0 up", host.port))?;
        ip(inside, "link set lo up")?;
        ip(inside, "link set eth0 up")?;
        ip(inside, &format!("address add {}/24 broadcast + dev eth0", host.address))?;
        ip(inside, "route add default dev eth0")?;
        Ok(host)
    }

    /// Pulls the host's cable.
    pub fn cut(&self, host: &Host) -> Result<()> {
        ip(&host.switch, &format!("link set {} down", host.port)).map(drop)
    }

    /// Puts the cable back.
    pub fn heal(&self, host: &Host) -> Result<()> {
        ip(&host.switch, &format!("link set {} up", host.port)).map(drop)
    }

    /// Drops every packet of the host without anybody being told: the link stays up.
    pub fn mute(&self, host: &Host) -> Result<()> {
        self.bridge_port(host, "state", "0")
    }

    /// Ends [`Net::mute`].
    pub fn unmute(&self, host: &Host) -> Result<()> {
        self.bridge_port(host, "state", "3")
    }

    /// Isolated hosts reach every host that is not isolated, and not each other.
    pub fn isolate(&self, host: &Host) -> Result<()> {
        self.bridge_port(host, "isolated", "on")
    }

    fn bridge_port(&self, host: &Host, what: &str, value: &str) -> Result<()> {
        let args = ["-n", &host.switch, "link", "set", "dev", &host.port, what, value];
        program::ok(&mut command("bridge", args)).map(drop)
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for number in 1..=self.hosts.get() {
            remove(&format!("{}-h{number}", self.name));
        }
        remove(&self.switch());
    }
}

impl Host {
    /// A command that runs on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("--").arg(program);
        command
    }

    /// Its address on the switch.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What went through its network card so far.
    pub fn wire(&self) -> Result<Wire> {
        let mut cat = self.command("cat");
        let table = program::ok(cat.arg("/proc/net/dev"))?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let numbers: Vec<&str> =
            line.context("no eth0 in /proc/net/dev")?.split_whitespace().collect();
        let number = |at: usize| -> Result<u64> {
            Ok(numbers.get(at).context("a short line in /proc/net/dev")?.parse()?)
        };
        Ok(Wire { received: number(0)?, sent: number(8)? })
    }
}

fn ip(namespace: &str, arguments: &str) -> Result<String> {
    let mut command = command("ip", ["-n", namespace]);
    program::ok(command.args(arguments.split(' ')))
}

fn remove(namespace: &str) {
    program::run(&mut command("ip", ["netns", "del", namespace]), program::COMMAND_BOUND).ok();
}

fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.filter_map(|entry| entry.ok()) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let maker =
            name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::skip::Need;

    #[test]
    fn hosts_reach_each_other_until_the_cable_is_pulled() -> Result<()> {
        crate::needs!(Need::Root, Need::Program("ip"), Need::Program("bash"));
        let net = Net::new()?;
        let (a, b) = (net.host()?, net.host()?);
        let reaches = || -> Result<bool> {
            // Nobody listens there: a host that is reached refuses, one that is not says nothing.
            let dial = format!("</dev/tcp/{}/9", b.address());
            let mut dialler = a.command("timeout");
            dialler.args(["2", "bash", "-c", &dial]);
            let ran = program::run(&mut dialler, program::COMMAND_BOUND)?;
            Ok(ran.err.contains("refused"))
        };
        assert!(reaches()?);
        for (break_it, mend_it) in [
            (Net::cut as fn(&Net, &Host) -> Result<()>, Net::heal as fn(&Net, &Host) -> Result<()>),
            (Net::mute, Net::unmute),
        ] {
            break_it(&net, &b)?;
            assert!(!reaches()?);
            mend_it(&net, &b)?;
            assert!(reaches()?);
        }
        net.isolate(&a)?;
        assert!(reaches()?, "one isolated host reaches a host that is not");
        net.isolate(&b)?;
        assert!(!reaches()?, "two isolated hosts do not reach each other");
        Ok(())
    }
}
