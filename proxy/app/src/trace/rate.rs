//! So many a second, of each of many: which service's turn it is.
//!
//! One worker's own; asked when a request without a caller's decision opens.
//!
//! Invariant: taking one allocates nothing, locks nothing and looks no text up.
//! Invariant: a flood of calls to one service does not take the traces of another, but where more services
//! than fit are called within one second.

use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHasher;
use weft_proxy_core::Moment;

/// Counts of this second. One number each: the second, whose it is, how many.
#[derive(Debug)]
pub struct Rates(Box<[AtomicU64]>);

impl Rates {
    /// Counts of many.
    #[must_use]
    pub fn many() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// A single count.
    #[must_use]
    pub fn one() -> Self {
        Self(Box::new([AtomicU64::new(0)]))
    }

    /// Takes one of this second's. Two threads at once might take one too many.
    pub fn take(&self, whose: u64, most: u32, now: Moment) -> bool {
        let mixed = whose.wrapping_mul(SPREAD);
        let tag = mixed >> 44;
        // One more, so that the very first second is not taken for the one before any was used.
        let second = (now.0 / NANOS + 1) & SECONDS;
        let first = usize::try_from(mixed & 0xffff).unwrap_or(0);
        let mut places = (0..TRIES).filter_map(|step| self.0.get((first + step) % self.0.len().max(1)));
        let its = |place: &&AtomicU64| {
            let (at, owner, _) = split(place.load(Ordering::Relaxed));
            at != second || owner == tag
        };
        // Where all are others', the last one's is shared.
        let place = places.find(its).or_else(|| self.0.get(first % self.0.len().max(1)));
        let Some(place) = place else { return false };
        let (at, owner, used) = split(place.load(Ordering::Relaxed));
        let used = if at == second { used } else { 0 };
        let owner = if at == second { owner } else { tag };
        if used >= u64::from(most).min(MOST) {
            return false;
        }
        place.store((second << 44) | (owner << 24) | (used + 1), Ordering::Relaxed);
        true
    }
}

/// A number that stands for a name, and hardly ever for another.
#[must_use]
pub fn number(name: &str) -> u64 {
    let mut hasher = FxHasher::default();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Second, owner, how many.
fn split(place: u64) -> (u64, u64, u64) {
    (place >> 44, (place >> 24) & 0xf_ffff, place & MOST)
}

const NANOS: u64 = 1_000_000_000;
/// Seconds are told apart for twelve days.
const SECONDS: u64 = 0xf_ffff;
/// Most that one place counts.
const MOST: u64 = 0xff_ffff;
/// Places. Source: 2 KiB a worker; a workload that calls more than a hundred services a second is rare.
const PLACES: usize = 256;
/// Places looked at for one of many.
const TRIES: usize = 8;
/// Source: Knuth's multiplicative hashing, 2^64 by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment(second * NANOS + 7)
    }

    #[test]
    fn each_has_its_own_and_the_next_second_begins_anew() {
        let rates = Rates::many();
        for second in [0, 1, 2, 1_048_575, 1_048_576, 5_000_000] {
            for whose in 0..100 {
                let taken = (0..10).filter(|_| rates.take(whose, 3, at(second))).count();
                assert_eq!(taken, 3, "{whose} in {second}");
            }
        }
    }

    #[test]
    fn more_than_fit_share_and_a_flood_stays_bounded() {
        let rates = Rates::many();
        let taken = (0..1_000_000_u64).filter(|whose| rates.take(*whose, 1, at(0))).count();
        assert!((128..=PLACES).contains(&taken), "{taken}");
    }

    #[test]
    fn a_single_count_is_everybodys() {
        let rates = Rates::one();
        assert!(rates.take(1, 2, at(0)) && rates.take(2, 2, at(0)));
        assert!(!rates.take(3, 2, at(0)));
    }
}
