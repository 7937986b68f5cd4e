//! The plan as text: what `--dry-run` prints, in the words of nft.
//!
//! Invariant: the text is a file that `nft -f` takes, and the table it makes is the one that
//! [`super::super::table`] writes; a test compares them.

use std::fmt;

use super::super::interval::Element;
use super::{Action, Hook, Match, Plan, Rule, Sense, Side, TABLE};

/// As a file that `nft -f` takes: what is printed for a person also works without this program.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{")?;
        for chain in &self.chains {
            let hook = match chain.hook {
                Hook::Prerouting => "prerouting",
                Hook::Output => "output",
            };
            writeln!(f, "\tchain {} {{", chain.name)?;
            writeln!(f, "\t\ttype nat hook {hook} priority -100; policy accept;")?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        match self.action {
            Action::Leave => write!(f, "counter return")?,
            Action::Redirect(port) => write!(f, "counter redirect to :{port}")?,
        }
        write!(f, " comment \"{}\"", self.why)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |sense: &Sense| match sense {
            Sense::In => "",
            Sense::NotIn => "!= ",
        };
        match self {
            Self::NotTcp => write!(f, "meta l4proto != tcp"),
            Self::Opening => write!(f, "tcp flags & (fin | syn | rst | ack) == syn"),
            Self::Loopback(Hook::Prerouting) => write!(f, "iifname \"lo\""),
            Self::Loopback(Hook::Output) => write!(f, "oifname \"lo\""),
            Self::Uid(uid) => write!(f, "meta skuid {uid}"),
            Self::Gid(gid) => write!(f, "meta skgid {gid}"),
            Self::Mark(mark) => write!(f, "meta mark {mark:#x}"),
            Self::Family(Element::V6) => write!(f, "meta nfproto ipv6"),
            Self::Family(_) => write!(f, "meta nfproto ipv4"),
            Self::Port(sense, set) => write!(f, "tcp dport {}{set}", not(sense)),
            Self::Address(side, sense, set) => {
                let family = if set.element() == Element::V6 { "ip6" } else { "ip" };
                let side = if *side == Side::Source { "saddr" } else { "daddr" };
                write!(f, "{family} {side} {}{set}", not(sense))
            }
        }
    }
}
