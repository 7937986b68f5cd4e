//! The plan as one nftables transaction, and the transaction carried out.
//!
//! A batch is all or nothing in the kernel: the old table and its rules go as the new ones come, and no
//! packet sees neither or both. The table is first added (which does nothing if it is there), then
//! deleted, then added: so it need not be known whether it was there.
//!
//! Every number is the kernel's. Source: Linux `include/uapi/linux/netfilter/nf_tables.h` and
//! `nfnetlink.h`.
//!
//! Invariant: nothing outside table `inet weft` is touched or read.

use rustix::io::Errno;
use rustix::net::netlink as family;

use super::expr::{self, NumberedSet};
use super::interval::{Element, Set};
use super::netlink::{ACK, APPEND, Attributes, CREATE, Socket, Writer};
use super::plan::{Chain, Hook, Plan, Rule, TABLE};
use super::{Error, Step};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFPROTO_INET`: IPv4 and IPv6 at once.
const INET: u8 = 1;
/// `NFT_MSG_*`.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_SET_ELEMENTS: u16 = 12;
/// `NF_IP_PRI_NAT_DST`: where destinations are rewritten. Source: `linux/netfilter_ipv4.h`.
const PRIORITY: i32 = -100;
/// `NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_INTERVAL`.
const SET_FLAGS: u32 = 0x1 | 0x2 | 0x4;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// The kernel gives an anonymous set its number in place of `%d`.
const SET_NAME: &str = "__set%d";
/// nft's own numbers for what a set holds: it prints the set by them, the kernel does not care.
/// Source: nftables `include/datatype.h`.
const TYPE_V4: u32 = 7;
const TYPE_V6: u32 = 8;
const TYPE_PORT: u32 = 13;
/// nft's own tags in what the kernel keeps for it: a set's byte order (2, network), a rule's comment.
/// Source: libnftnl `include/libnftnl/udata.h`.
const RULE_COMMENT: u8 = 0;
const SET_BYTE_ORDER: u8 = 0;
const NETWORK_ORDER: u32 = 2;

/// A transaction, and what each of its requests is for.
#[derive(Debug, Default)]
pub(super) struct Batch {
    writer: Writer,
    steps: Vec<(u32, Step)>,
    sets: u32,
}

impl Batch {
    /// Removes the table, there or not.
    pub(super) fn removal() -> Self {
        let mut batch = Self::default();
        batch.frame(BATCH_BEGIN);
        batch.table(NEW_TABLE, 0);
        batch.table(DELETE_TABLE, ACK);
        batch.frame(BATCH_END);
        batch
    }

    /// Puts the plan's table in the place of whatever table of ours there is.
    pub(super) fn replacement(plan: &Plan) -> Self {
        let mut batch = Self::default();
        batch.frame(BATCH_BEGIN);
        batch.table(NEW_TABLE, 0);
        batch.table(DELETE_TABLE, 0);
        batch.table(NEW_TABLE, ACK);
        for chain in &plan.chains {
            batch.chain(chain);
            for rule in &chain.rules {
                batch.rule(chain, rule);
            }
        }
        batch.frame(BATCH_END);
        batch
    }

    /// The requests as the kernel takes them.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// Carries it out in the calling thread's network namespace.
    pub(super) fn commit(&self) -> Result<(), Error> {
        let socket = Socket::open(Some(family::NETFILTER)).map_err(Error::of_socket)?;
        let answers = socket.transact(&self.writer).map_err(Error::of_socket)?;
        let refusal = answers.iter().find_map(|answer| Some((answer.sequence, answer.refused?)));
        match refusal {
            Some((sequence, errno)) => Err(Error::of_step(self.step(sequence), errno)),
            None if answers.is_empty() => Err(Error::of_step(Step::Commit, Errno::NODATA)),
            None => Ok(()),
        }
    }

    fn step(&self, sequence: u32) -> Step {
        let step = self.steps.iter().find(|(number, _)| *number == sequence);
        step.map_or(Step::Commit, |(_, step)| *step)
    }

    fn frame(&mut self, kind: u16) {
        let [high, low] = NFTABLES.to_be_bytes();
        self.writer.request(kind, 0, &[0, 0, high, low], |_| {});
    }

    fn table(&mut self, kind: u16, flags: u16) {
        let flags = if kind == NEW_TABLE { flags | CREATE } else { flags };
        self.step_request(Step::Table, kind, flags, |a| a.text(1, TABLE));
    }

    fn chain(&mut self, chain: &Chain) {
        let hook = match chain.hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
        };
        self.step_request(Step::Chain(chain.name), NEW_CHAIN, CREATE, |a| {
            a.text(1, TABLE);
            a.text(3, chain.name);
            a.nest(4, |a| {
                a.number(1, hook);
                a.bytes(2, &PRIORITY.to_be_bytes());
            });
            a.text(7, "nat");
        });
    }

    fn rule(&mut self, chain: &Chain, rule: &Rule) {
        let first_set = self.sets + 1;
        for set in expr::sets(rule) {
            self.sets += 1;
            self.set((self.sets, set));
        }
        let step = Step::Rule(chain.name, rule.why);
        self.step_request(step, NEW_RULE, CREATE | APPEND | ACK, |a| {
            a.text(1, TABLE);
            a.text(2, chain.name);
            a.nest(4, |a| expr::write(rule, first_set, SET_NAME, a));
            a.bytes(7, &comment(rule.why));
        });
    }

    fn set(&mut self, (number, set): NumberedSet<'_>) {
        let (kind, length) = match set.element() {
            Element::Port => (TYPE_PORT, 2),
            Element::V4 => (TYPE_V4, 4),
            Element::V6 => (TYPE_V6, 16),
        };
        self.step_request(Step::Set, NEW_SET, CREATE, |a| {
            a.text(1, TABLE);
            a.text(2, SET_NAME);
            a.number(3, SET_FLAGS);
            a.number(4, kind);
            a.number(5, length);
            a.number(10, number);
            a.bytes(13, &tagged(SET_BYTE_ORDER, &NETWORK_ORDER.to_ne_bytes()));
        });
        self.step_request(Step::Set, NEW_SET_ELEMENTS, CREATE, |a| {
            a.text(1, TABLE);
            a.text(2, SET_NAME);
            a.number(4, number);
            a.nest(3, |a| elements(set, a));
        });
    }

    fn step_request(&mut self, step: Step, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let header = [INET, 0, 0, 0];
        let sequence = self.writer.request(NFTABLES << 8 | kind, flags, &header, body);
        self.steps.push((sequence, step));
    }
}

fn elements(set: &Set, list: &mut Attributes<'_>) {
    for (boundary, ends) in set.boundaries() {
        list.nest(1, |a| {
            a.nest(1, |a| a.bytes(expr::DATA_VALUE, &boundary));
            if ends {
                a.number(3, INTERVAL_END);
            }
        });
    }
}

fn comment(why: &str) -> Vec<u8> {
    let mut text = why.as_bytes().to_vec();
    text.truncate(usize::from(u8::MAX) - 1);
    text.push(0);
    tagged(RULE_COMMENT, &text)
}

/// One of nft's own notes: tag, length, value.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(value);
    bytes
}
