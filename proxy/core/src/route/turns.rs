//! Whose turn it is: smooth weighted round-robin over a rule's backends.
//!
//! Owned by each worker beside its outbound; a new outbound gets new turns.
//!
//! Invariant: over one cycle (the sum of the weights) each backend gets exactly its weight, and its
//! turns are spread evenly; weight 0 gets none. Integers only, no allocation per turn.

use crate::chance::Chance;
use crate::outbound::Outbound;
use crate::route::rule::Rule;

/// Running credits of all rules of one outbound.
#[derive(Clone, Debug)]
pub struct Turns {
    credits: Vec<i64>,
    first: Vec<u32>,
}

impl Turns {
    /// Turns at the beginning of their cycles.
    #[must_use]
    pub fn new(outbound: &Outbound) -> Self {
        let mut first = Vec::with_capacity(outbound.rules.len());
        let mut total = 0;
        for rule in &outbound.rules {
            first.push(total);
            total += u32::try_from(rule.shares.len()).unwrap_or(0);
        }
        Self { credits: vec![0; total as usize], first }
    }

    /// Turns somewhere in their cycles, so that many sidecars which begin together do not all begin
    /// with the heaviest backend.
    #[must_use]
    pub fn spread(outbound: &Outbound, chance: &mut Chance) -> Self {
        let mut turns = Self::new(outbound);
        for (index, rule) in outbound.rules.iter().enumerate() {
            let Ok(index) = u16::try_from(index) else { break };
            let cycle = u32::try_from(rule.total).unwrap_or(u32::MAX).min(MAX_SPREAD);
            for _ in 0..chance.below(cycle) {
                turns.take(index, rule);
            }
        }
        turns
    }

    /// The share whose turn it is; `None` when no share has any weight.
    pub(crate) fn take(&mut self, index: u16, rule: &Rule) -> Option<u16> {
        if rule.total == 0 {
            return None;
        }
        if let [_] = rule.shares.as_slice() {
            return Some(0);
        }
        let first = *self.first.get(usize::from(index))? as usize;
        let credits = self.credits.get_mut(first..first + rule.shares.len())?;
        let mut best: Option<usize> = None;
        for (at, share) in rule.shares.iter().enumerate() {
            credits[at] += i64::from(share.weight);
            if share.weight > 0 && best.is_none_or(|best| credits[at] > credits[best]) {
                best = Some(at);
            }
        }
        let best = best?;
        credits[best] -= rule.total;
        u16::try_from(best).ok()
    }
}

/// Steps made to spread: enough for weights in percent.
const MAX_SPREAD: u32 = 100;
