//! A rule's expressions in nftables' own machine: load something into a register, compare it, act.
//!
//! Every number is the kernel's. Source: Linux `include/uapi/linux/netfilter/nf_tables.h`, unless said
//! otherwise.
//!
//! Invariant: a match that reads a TCP or IP header first makes sure that the packet has one.
//! Invariant: one register serves all: a rule never needs two values at once.

use super::interval::{Element, Set};
use super::netlink::Attributes;
use super::plan::{Action, Hook, Match, Rule, Sense, Side};

/// The first register of 16 bytes (`NFT_REG_1`).
const REGISTER: u32 = 1;
/// The register a verdict is written to (`NFT_REG_VERDICT`).
const VERDICT_REGISTER: u32 = 0;
/// `NFT_RETURN`: back to the chain's policy, which accepts.
const RETURN: i32 = -5;
/// Source: IANA, protocol numbers.
const TCP: u8 = 6;
/// `NFPROTO_IPV4` and `NFPROTO_IPV6`. Source: `include/uapi/linux/netfilter.h`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// An interface's name with its padding. Source: `include/uapi/linux/if.h`.
const IFNAMSIZ: usize = 16;
/// Attribute of an element in a list, an expression's name, and its content.
const LIST_ELEMENT: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`.
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// What `meta` can load (`NFT_META_*`).
#[derive(Clone, Copy)]
enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    SocketUid = 10,
    SocketGid = 11,
    Family = 15,
    Protocol = 16,
}

/// Where `payload` loads from (`NFT_PAYLOAD_*`).
#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// How `cmp` compares (`NFT_CMP_*`).
#[derive(Clone, Copy)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// A place in a packet: offset and length in bytes.
struct Field {
    header: Header,
    offset: u32,
    length: u32,
}

/// Source: RFC 9293 §3.1.
const DESTINATION_PORT: Field = Field { header: Header::Transport, offset: 2, length: 2 };
const TCP_FLAGS: Field = Field { header: Header::Transport, offset: 13, length: 1 };
/// FIN, SYN, RST and ACK among the flags; SYN alone.
const OPENING_MASK: u8 = 0x17;
const SYN: u8 = 0x02;

/// A set, and the number by which a rule of the same batch names it.
pub(super) type NumberedSet<'a> = (u32, &'a Set);

/// The sets a rule looks up, in order.
pub(super) fn sets(rule: &Rule) -> impl Iterator<Item = &Set> {
    rule.matches.iter().filter_map(|condition| match condition {
        Match::Port(_, set) | Match::Address(_, _, set) => Some(set),
        _ => None,
    })
}

/// Writes a rule's expressions. `first_set` numbers the first of its sets; the others follow.
pub(super) fn write(rule: &Rule, first_set: u32, set_name: &str, list: &mut Attributes<'_>) {
    let mut list = List(list);
    let mut set = first_set;
    for condition in &rule.matches {
        list.condition(condition, set, set_name);
        if matches!(condition, Match::Port(..) | Match::Address(..)) {
            set += 1;
        }
    }
    list.expression("counter", |_| {});
    match rule.action {
        Action::Leave => list.leave(),
        Action::Redirect(port) => list.redirect(port),
    }
}

struct List<'a, 'b>(&'a mut Attributes<'b>);

impl List<'_, '_> {
    fn condition(&mut self, condition: &Match, set: u32, set_name: &str) {
        match condition {
            Match::NotTcp => self.meta(Meta::Protocol, Compare::NotEqual, &[TCP]),
            Match::Opening => self.opening(),
            Match::Loopback(Hook::Prerouting) => {
                self.meta(Meta::InputName, Compare::Equal, &interface("lo"));
            }
            Match::Loopback(Hook::Output) => self.meta(Meta::OutputName, Compare::Equal, &interface("lo")),
            Match::Uid(uid) => self.meta(Meta::SocketUid, Compare::Equal, &uid.to_ne_bytes()),
            Match::Gid(gid) => self.meta(Meta::SocketGid, Compare::Equal, &gid.to_ne_bytes()),
            Match::Mark(mark) => self.meta(Meta::Mark, Compare::Equal, &mark.to_ne_bytes()),
            Match::Family(element) => self.family(*element),
            Match::Port(sense, _) => {
                self.meta(Meta::Protocol, Compare::Equal, &[TCP]);
                self.payload(&DESTINATION_PORT);
                self.lookup(*sense, set, set_name);
            }
            Match::Address(side, sense, members) => {
                self.family(members.element());
                self.payload(&address(*side, members.element()));
                self.lookup(*sense, set, set_name);
            }
        }
    }

    fn opening(&mut self) {
        self.meta(Meta::Protocol, Compare::Equal, &[TCP]);
        self.payload(&TCP_FLAGS);
        self.expression("bitwise", |a| {
            a.number(1, REGISTER);
            a.number(2, REGISTER);
            a.number(3, TCP_FLAGS.length);
            a.nest(4, |a| a.bytes(DATA_VALUE, &[OPENING_MASK]));
            a.nest(5, |a| a.bytes(DATA_VALUE, &[0]));
        });
        self.compare(Compare::Equal, &[SYN]);
    }

    fn family(&mut self, element: Element) {
        let family = if element == Element::V6 { IPV6 } else { IPV4 };
        self.meta(Meta::Family, Compare::Equal, &[family]);
    }

    fn meta(&mut self, key: Meta, compare: Compare, value: &[u8]) {
        self.expression("meta", |a| {
            a.number(1, REGISTER);
            a.number(2, key as u32);
        });
        self.compare(compare, value);
    }

    fn payload(&mut self, field: &Field) {
        self.expression("payload", |a| {
            a.number(1, REGISTER);
            a.number(2, field.header as u32);
            a.number(3, field.offset);
            a.number(4, field.length);
        });
    }

    fn compare(&mut self, compare: Compare, value: &[u8]) {
        self.expression("cmp", |a| {
            a.number(1, REGISTER);
            a.number(2, compare as u32);
            a.nest(3, |a| a.bytes(DATA_VALUE, value));
        });
    }

    fn lookup(&mut self, sense: Sense, set: u32, set_name: &str) {
        self.expression("lookup", |a| {
            a.text(1, set_name);
            a.number(2, REGISTER);
            a.number(4, set);
            a.number(5, u32::from(sense == Sense::NotIn));
        });
    }

    fn leave(&mut self) {
        self.expression("immediate", |a| {
            a.number(1, VERDICT_REGISTER);
            a.nest(2, |a| a.nest(DATA_VERDICT, |a| a.bytes(VERDICT_CODE, &RETURN.to_be_bytes())));
        });
    }

    fn redirect(&mut self, port: u16) {
        self.expression("immediate", |a| {
            a.number(1, REGISTER);
            a.nest(2, |a| a.bytes(DATA_VALUE, &port.to_be_bytes()));
        });
        self.expression("redir", |a| a.number(1, REGISTER));
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nest(LIST_ELEMENT, |a| {
            a.text(EXPR_NAME, name);
            a.nest(EXPR_DATA, data);
        });
    }
}

/// Source: RFC 791 §3.1, RFC 8200 §3.
fn address(side: Side, element: Element) -> Field {
    let offset = match (element, side) {
        (Element::V6, Side::Source) => 8,
        (Element::V6, Side::Destination) => 24,
        (_, Side::Source) => 12,
        (_, Side::Destination) => 16,
    };
    let length = if element == Element::V6 { 16 } else { 4 };
    Field { header: Header::Network, offset, length }
}

fn interface(name: &str) -> [u8; IFNAMSIZ] {
    let mut padded = [0; IFNAMSIZ];
    for (place, byte) in padded.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    padded
}
