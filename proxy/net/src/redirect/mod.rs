//! Capture: leads a pod's TCP connections through its sidecar, with an nftables table of Weft's own.
//!
//! Stands before the walk: `weft-proxy init` calls [`install`] once, in the pod's network namespace,
//! before the application starts. *accept* then reads from each socket where it was meant to go.
//!
//! ```text
//! Capture ──plan──▶ Plan (rules; printable) ──table──▶ one batch ──netlink──▶ kernel
//! ```
//!
//! Invariant: no program is run and no other table is touched.
//! Invariant: whatever was there, afterwards the table is exactly the plan, or the error says which
//! part the kernel refused and nothing has changed.

mod expr;
pub mod interval;
pub mod netlink;
pub mod plan;
mod table;

#[cfg(test)]
mod tests;

use std::fmt;

use rustix::io::Errno;

pub use interval::{BadPorts, Ports};
pub use plan::{BadCapture, Capture, Plan};

/// Puts the plan's table in place in the calling thread's network namespace, at once and whole.
///
/// # Errors
/// [`Error`] says what is missing; the tables are then as they were.
pub fn install(plan: &Plan) -> Result<(), Error> {
    table::Batch::replacement(plan).commit()
}

/// Removes the table; well if there is none. Connections captured earlier may break.
///
/// # Errors
/// [`Error`] says what is missing; the tables are then as they were.
pub fn remove() -> Result<(), Error> {
    table::Batch::removal().commit()
}

/// Which request of the transaction the kernel answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The table itself.
    Table,
    /// A chain, by name.
    Chain(&'static str),
    /// A set of ports or networks.
    Set,
    /// A rule, by its chain and its comment.
    Rule(&'static str, &'static str),
    /// The transaction as a whole.
    Commit,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => write!(f, "table inet {}", plan::TABLE),
            Self::Chain(name) => write!(f, "chain {name} (type nat)"),
            Self::Set => write!(f, "a set of ports or networks"),
            Self::Rule(chain, why) => write!(f, "rule \"{why}\" of chain {chain}"),
            Self::Commit => write!(f, "the transaction"),
        }
    }
}

/// Why the table is not in place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The process may not change the network.
    #[error(
        "changing {TABLE_NAME} needs the capability CAP_NET_ADMIN in this network namespace: give the init \
         container securityContext.capabilities.add [NET_ADMIN] (and runAsUser 0, or the binary the file \
         capability), or let the CNI plugin program the pod"
    )]
    NotPermitted,
    /// The kernel has no netlink for netfilter.
    #[error(
        "this kernel offers no netfilter netlink ({0}): load the modules nfnetlink and nf_tables on the node \
         (CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES), or use explicit listeners instead of capture"
    )]
    NoNetfilter(Errno),
    /// The kernel lacks a part of nftables.
    #[error(
        "the kernel refused {step} ({errno}): it lacks {need}; load it on the node (modprobe), then try again"
    )]
    Unsupported {
        /// What was refused.
        step: Step,
        /// Which modules, options or version would allow it.
        need: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// Another refusal.
    #[error("the kernel refused {step}: {errno}; nothing was changed")]
    Refused {
        /// What was refused.
        step: Step,
        /// What the kernel said.
        errno: Errno,
    },
}

const TABLE_NAME: &str = "the nftables table inet weft";

impl Error {
    fn of_socket(errno: Errno) -> Self {
        match errno {
            Errno::PERM | Errno::ACCESS => Self::NotPermitted,
            Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => Self::NoNetfilter(errno),
            _ => Self::Refused { step: Step::Commit, errno },
        }
    }

    fn of_step(step: Step, errno: Errno) -> Self {
        // What a missing module looks like differs: an unknown subsystem, family, chain type or
        // expression answers with one of these.
        let missing = matches!(
            errno,
            Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::INVAL
        );
        match (errno, step) {
            (Errno::PERM | Errno::ACCESS, _) => Self::NotPermitted,
            (Errno::OPNOTSUPP, Step::Commit) => Self::NoNetfilter(errno),
            _ if missing => match need(step) {
                Some(need) => Self::Unsupported { step, need, errno },
                None => Self::Refused { step, errno },
            },
            _ => Self::Refused { step, errno },
        }
    }
}

/// What a kernel that refuses the step as unknown is missing.
fn need(step: Step) -> Option<&'static str> {
    match step {
        Step::Table => {
            Some("nf_tables with the inet family (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET; Linux 5.2)")
        }
        Step::Chain(_) => Some("NAT in the inet family (module nft_chain_nat, CONFIG_NFT_NAT; Linux 5.2)"),
        Step::Set => {
            Some("interval sets of nf_tables (CONFIG_NF_TABLES; module nft_set_rbtree before Linux 5.0)")
        }
        Step::Rule(..) => Some(
            "an expression of that rule (module nft_redir, CONFIG_NFT_REDIR, for redirect; \
             nft_counter before Linux 5.17)",
        ),
        Step::Commit => None,
    }
}
