//! Which connections of a pod go through the sidecar, as a list of rules: decided here, written down
//! for the kernel in [`super::table`], printed for a person in `plan/text.rs`.
//!
//! The order of the rules is the whole policy; the first that matches decides:
//!
//! ```text
//! outbound (output)                          inbound (prerouting)
//!   not TCP                        leave       not TCP                          leave
//!   DNS over TCP                   leave       arrived on loopback              leave
//!   the sidecar calling its own    inbound     to a port of the sidecar's own   leave
//!     pod, from a loopback source              skipped port or source network   leave
//!   the sidecar's own              leave       not an included port             leave
//!   leaves on loopback             leave       new connection                   inbound port
//!   skipped port or network        leave
//!   not an included port, network  leave
//!   new connection                 outbound port
//! ```
//!
//! An application that calls its own pod by address or by `localhost` stays on loopback and is left
//! alone. One that calls its own *service* is captured like any other call; if the sidecar then picks
//! this very pod, it calls the pod's address **from 127.0.0.1 or ::1**, and the third rule leads that
//! call to its own inbound side, so that identity and policy hold. Every other connection of the
//! sidecar goes where it says, so its inbound side reaches the application on any address.
//!
//! Invariant: a rule redirects only a connection's first packet (SYN alone). Connections that stood
//! before the rules came are never bent.
//! Invariant: the kernel redirects output to 127.0.0.1 or ::1 and input to the address of the interface
//! it came in by; the outbound listener may stand on loopback, the inbound one must stand on all.

mod text;

use ipnet::IpNet;

use super::interval::{Element, Ports, Set};

/// Port the sidecar takes inbound connections on. Source: Istio's, so that operators' habits hold.
pub const INBOUND_PORT: u16 = 15006;
/// Port the sidecar takes outbound connections on. Source: Istio's.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port of the sidecar's own administration (metrics, readiness). Source: Istio's agent.
pub const ADMIN_PORT: u16 = 15020;
/// User the sidecar runs as. Source: Linkerd's; Istio's is 1337.
pub const PROXY_UID: u32 = 2102;
/// Mark by which a sidecar that may set one shows a connection as its own (as Istio does with 1337).
/// Source: the same number as the user, for one thing less to remember.
pub const PROXY_MARK: u32 = 2102;
/// Name of the table; its family is `inet`.
pub const TABLE: &str = "weft";
/// Chain of connections that arrive.
pub const INBOUND_CHAIN: &str = "inbound";
/// Chain of connections that leave.
pub const OUTBOUND_CHAIN: &str = "outbound";
/// Entries one list may hold. Source: a list's elements must fit one netlink attribute of 64 KiB.
pub const MAX_ENTRIES: usize = 800;

/// DNS. Source: RFC 7766 §5: resolvers fall back to TCP, and a resolver must not depend on the mesh.
const DNS_PORT: u16 = 53;

/// What shall be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Where outbound connections go.
    pub outbound_port: u16,
    /// The sidecar's user.
    pub proxy_uid: u32,
    /// The sidecar's group, where a group of its own is what tells it apart.
    pub proxy_gid: Option<u32>,
    /// The mark on the sidecar's connections.
    pub proxy_mark: u32,
    /// Further ports of the sidecar itself, never captured inbound.
    pub admin_ports: Vec<u16>,
    /// Inbound ports left alone.
    pub skip_inbound_ports: Vec<Ports>,
    /// Sources whose inbound connections are left alone.
    pub skip_inbound_cidrs: Vec<IpNet>,
    /// If not empty: the only inbound ports captured.
    pub only_inbound_ports: Vec<Ports>,
    /// Outbound ports left alone.
    pub skip_outbound_ports: Vec<Ports>,
    /// Destinations left alone.
    pub skip_outbound_cidrs: Vec<IpNet>,
    /// If not empty: the only outbound ports captured.
    pub only_outbound_ports: Vec<Ports>,
    /// If not empty: the only destinations captured.
    pub only_outbound_cidrs: Vec<IpNet>,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            inbound_port: INBOUND_PORT,
            outbound_port: OUTBOUND_PORT,
            proxy_uid: PROXY_UID,
            proxy_gid: None,
            proxy_mark: PROXY_MARK,
            admin_ports: vec![ADMIN_PORT],
            skip_inbound_ports: Vec::new(),
            skip_inbound_cidrs: Vec::new(),
            only_inbound_ports: Vec::new(),
            skip_outbound_ports: Vec::new(),
            skip_outbound_cidrs: Vec::new(),
            only_outbound_ports: Vec::new(),
            only_outbound_cidrs: Vec::new(),
        }
    }
}

/// A capture that no table can express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCapture {
    /// A port is 0.
    #[error("the {0} port is 0; give a port the sidecar listens on")]
    NoPort(&'static str),
    /// Inbound and outbound would meet.
    #[error("inbound and outbound connections would both go to port {0}; give them a port each")]
    OnePort(u16),
    /// A list is too long.
    #[error("{list} has {count} entries, more than {MAX_ENTRIES}; use ranges or wider networks")]
    TooLong {
        /// The list.
        list: &'static str,
        /// Its length.
        count: usize,
    },
}

/// The table: two chains of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The chains.
    pub chains: [Chain; 2],
}

/// Rules at one place in a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Its place.
    pub hook: Hook,
    /// Its rules; the first that matches decides.
    pub rules: Vec<Rule>,
}

/// A place in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Arrived, not yet routed.
    Prerouting,
    /// Made here, about to leave.
    Output,
}

/// What is done with a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of these must hold.
    pub matches: Vec<Match>,
    /// Then this is done.
    pub action: Action,
    /// Said beside the rule in the kernel's table.
    pub why: &'static str,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Any protocol but TCP.
    NotTcp,
    /// A TCP segment with SYN and none of ACK, RST, FIN.
    Opening,
    /// Over the loopback interface: arrived by it (prerouting) or leaving by it (output).
    Loopback(Hook),
    /// The socket's user.
    Uid(u32),
    /// The socket's group.
    Gid(u32),
    /// The socket's mark.
    Mark(u32),
    /// IPv4 or IPv6.
    Family(Element),
    /// The destination port is (or is not) in the set.
    Port(Sense, Set),
    /// The address is (or is not) in the set.
    Address(Side, Sense, Set),
}

/// Whether a member of the set is meant, or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// Members.
    In,
    /// Others.
    NotIn,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The connection is none of ours.
    Leave,
    /// The connection goes to this local port.
    Redirect(u16),
}

impl Plan {
    /// The rules for `capture`.
    ///
    /// # Errors
    /// [`BadCapture`] says which setting cannot be.
    pub fn new(capture: &Capture) -> Result<Self, BadCapture> {
        capture.check()?;
        let inbound = Chain { name: INBOUND_CHAIN, hook: Hook::Prerouting, rules: inbound(capture) };
        let outbound = Chain { name: OUTBOUND_CHAIN, hook: Hook::Output, rules: outbound(capture) };
        Ok(Self { chains: [inbound, outbound] })
    }
}

impl Capture {
    fn check(&self) -> Result<(), BadCapture> {
        for (name, port) in [("inbound", self.inbound_port), ("outbound", self.outbound_port)] {
            if port == 0 {
                return Err(BadCapture::NoPort(name));
            }
        }
        if self.inbound_port == self.outbound_port {
            return Err(BadCapture::OnePort(self.inbound_port));
        }
        let lists = [
            ("admin-port", self.admin_ports.len()),
            ("skip-inbound-ports", self.skip_inbound_ports.len()),
            ("skip-inbound-cidrs", self.skip_inbound_cidrs.len()),
            ("only-inbound-ports", self.only_inbound_ports.len()),
            ("skip-outbound-ports", self.skip_outbound_ports.len()),
            ("skip-outbound-cidrs", self.skip_outbound_cidrs.len()),
            ("only-outbound-ports", self.only_outbound_ports.len()),
            ("only-outbound-cidrs", self.only_outbound_cidrs.len()),
        ];
        match lists.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
            Some((list, count)) => Err(BadCapture::TooLong { list, count }),
            None => Ok(()),
        }
    }
}

fn inbound(capture: &Capture) -> Vec<Rule> {
    let mut own = vec![Ports::from(capture.inbound_port), Ports::from(capture.outbound_port)];
    own.extend(capture.admin_ports.iter().copied().filter(|port| *port != 0).map(Ports::from));
    let mut rules = vec![
        leave([Match::NotTcp], "UDP and all else"),
        leave([Match::Loopback(Hook::Prerouting)], "inside the pod"),
        leave([Match::Port(Sense::In, Set::of_ports(&own))], "the sidecar's own ports"),
    ];
    skip_ports(&mut rules, &capture.skip_inbound_ports, "skipped inbound port");
    skip_networks(&mut rules, Side::Source, &capture.skip_inbound_cidrs, "skipped source");
    only_ports(&mut rules, &capture.only_inbound_ports, "not an included inbound port");
    rules.push(redirect([Match::Opening], capture.inbound_port, "to the sidecar, inbound"));
    rules
}

fn outbound(capture: &Capture) -> Vec<Rule> {
    let dns = Set::of_ports(&[Ports::from(DNS_PORT)]);
    let mut rules = vec![
        leave([Match::NotTcp], "UDP and all else"),
        leave([Match::Port(Sense::In, dns)], "DNS over TCP"),
    ];
    let mut own = vec![Match::Uid(capture.proxy_uid)];
    own.extend(capture.proxy_gid.map(Match::Gid));
    own.push(Match::Mark(capture.proxy_mark));
    for owner in &own {
        rules
            .extend(loopback_networks().map(|network| call_of_own_pod(owner, network, capture.inbound_port)));
    }
    rules.extend(own.into_iter().map(|owner| leave([owner], "the sidecar's own")));
    rules.push(leave([Match::Loopback(Hook::Output)], "inside the pod"));
    skip_ports(&mut rules, &capture.skip_outbound_ports, "skipped outbound port");
    skip_networks(&mut rules, Side::Destination, &capture.skip_outbound_cidrs, "skipped destination");
    only_ports(&mut rules, &capture.only_outbound_ports, "not an included outbound port");
    only_networks(&mut rules, &capture.only_outbound_cidrs, "not an included destination");
    rules.push(redirect([Match::Opening], capture.outbound_port, "to the sidecar, outbound"));
    rules
}

/// The addresses that never leave a machine. Source: RFC 1122 §3.2.1.3 (g), RFC 4291 §2.5.3.
fn loopback_networks() -> impl Iterator<Item = Set> {
    let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
    let (v4, v6) = Set::of_networks(&[v4.into(), v6.into()]);
    [v4, v6].into_iter()
}

fn call_of_own_pod(owner: &Match, loopback: Set, port: u16) -> Rule {
    let matches = [
        Match::Loopback(Hook::Output),
        owner.clone(),
        Match::Address(Side::Source, Sense::In, loopback.clone()),
        Match::Address(Side::Destination, Sense::NotIn, loopback),
        Match::Opening,
    ];
    redirect(matches, port, "the sidecar calling its own pod")
}

fn leave(matches: impl Into<Vec<Match>>, why: &'static str) -> Rule {
    Rule { matches: matches.into(), action: Action::Leave, why }
}

fn redirect(matches: impl Into<Vec<Match>>, port: u16, why: &'static str) -> Rule {
    Rule { matches: matches.into(), action: Action::Redirect(port), why }
}

fn skip_ports(rules: &mut Vec<Rule>, ports: &[Ports], why: &'static str) {
    if !ports.is_empty() {
        rules.push(leave([Match::Port(Sense::In, Set::of_ports(ports))], why));
    }
}

fn only_ports(rules: &mut Vec<Rule>, ports: &[Ports], why: &'static str) {
    if !ports.is_empty() {
        rules.push(leave([Match::Port(Sense::NotIn, Set::of_ports(ports))], why));
    }
}

fn skip_networks(rules: &mut Vec<Rule>, side: Side, networks: &[IpNet], why: &'static str) {
    let (v4, v6) = Set::of_networks(networks);
    for set in [v4, v6].into_iter().filter(|set| !set.is_empty()) {
        rules.push(leave([Match::Address(side, Sense::In, set)], why));
    }
}

/// A family of which no network is included is left alone whole.
fn only_networks(rules: &mut Vec<Rule>, networks: &[IpNet], why: &'static str) {
    if networks.is_empty() {
        return;
    }
    let (v4, v6) = Set::of_networks(networks);
    for set in [v4, v6] {
        let element = set.element();
        rules.push(match set.is_empty() {
            true => leave([Match::Family(element)], why),
            false => leave([Match::Address(Side::Destination, Sense::NotIn, set)], why),
        });
    }
}

#[cfg(test)]
mod tests;
