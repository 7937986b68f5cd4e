//! Who a certificate names, and until when it is good: read from its bytes, no chain looked at.
//!
//! Invariant: exactly one URI name, and that a SPIFFE identity; anything else names nobody.

use rustls_pki_types::{CertificateDer, UnixTime};
use weft_proxy_core::Identity;

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPeer {
    /// No certificate at all.
    #[error("no certificate was presented")]
    None,
    /// Not an X.509 certificate webpki can read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No URI name.
    #[error("the certificate has no URI name")]
    NoName,
    /// More than one URI name.
    #[error("the certificate has more than one URI name")]
    ManyNames,
    /// The URI name is not a workload's SPIFFE identity.
    #[error("{0:?} is not a workload identity")]
    NotAnIdentity(String),
    /// A good identity, but not the one that was to be reached.
    #[error("the peer is {found}, not {expected}")]
    Other {
        /// Who was to be reached.
        expected: Identity,
        /// Who answered.
        found: Identity,
    },
    /// Not valid now: too late or too early. Looked at here only when a session is resumed.
    #[error("the certificate is not valid at this time")]
    NotNow,
}

/// Longest foreign text repeated in an error.
/// Source: SPIFFE limits an identity to 2048 bytes; a log line needs only its start.
const QUOTED: usize = 256;

/// The identity that the first certificate of `chain` names.
///
/// # Errors
/// When there is no certificate, or it does not name exactly one workload.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Identity, BadPeer> {
    let leaf = chain.first().ok_or(BadPeer::None)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|_| BadPeer::Unreadable)?;
    let mut names = leaf.valid_uri_names();
    let name = names.next().ok_or(BadPeer::NoName)?;
    if names.next().is_some() {
        return Err(BadPeer::ManyNames);
    }
    Identity::parse(name).map_err(|_| BadPeer::NotAnIdentity(name.chars().take(QUOTED).collect()))
}

/// The time in which a certificate is good: from, until.
#[must_use]
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(UnixTime, UnixTime)> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(body, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields, VERSION)?.1;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = element(fields, tag)?.1;
    }
    let (times, _) = element(fields, SEQUENCE)?;
    let (from, rest) = time(times)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Content of the first DER element, which must have `tag`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

/// RFC 5280 §4.1.2.5: years up to 2049 as `YYMMDDHHMMSSZ`, later ones with four digits.
fn time(der: &[u8]) -> Option<(UnixTime, &[u8])> {
    let (text, rest, year, tail) = if der.first() == Some(&UTC_TIME) {
        let (text, rest) = element(der, UTC_TIME)?;
        let year = number(text.get(..2)?)?;
        (text, rest, if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
    } else {
        let (text, rest) = element(der, GENERALIZED_TIME)?;
        (text, rest, number(text.get(..4)?)?, text.get(4..)?)
    };
    if tail.len() != 11 || text.last() != Some(&b'Z') {
        return None;
    }
    let part = |at: usize| number(tail.get(at..at + 2)?);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days(year, month, day)
        .checked_mul(86_400)?
        .checked_add(hour * 3600 + minute * 60 + second)
        .map_or(0, |seconds| seconds.max(0));
    let since = std::time::Duration::from_secs(u64::try_from(seconds).ok()?);
    Some((UnixTime::since_unix_epoch(since), rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years begin in March, so that a leap day is last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_the_calendar() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11_016);
        assert_eq!(days(2026, 11, 21), 20_778);
        assert_eq!(days(2100, 3, 1), 47_541);
    }

    #[test]
    fn times_are_read_in_both_forms_and_nonsense_is_not() {
        let der = |tag: u8, text: &str| [&[tag, text.len() as u8], text.as_bytes()].concat();
        let secs = |der: &[u8]| time(der).map(|(time, _)| time.as_secs());
        assert_eq!(secs(&der(UTC_TIME, "700101000001Z")), Some(1));
        assert_eq!(secs(&der(GENERALIZED_TIME, "20261121000000Z")), Some(20_778 * 86_400));
        assert_eq!(secs(&der(UTC_TIME, "701301000001Z")), None);
        assert_eq!(secs(&der(UTC_TIME, "7001010000Z")), None);
        assert_eq!(secs(&der(GENERALIZED_TIME, "2026112100000+")), None);
        assert_eq!(secs(&[UTC_TIME, 0x84, 0, 0, 0, 1]), None);
        assert_eq!(secs(&[]), None);
    }

    #[test]
    fn no_prefix_of_a_certificate_has_a_validity_by_accident_of_panic() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2060, 3, 4);
        let whole = params.self_signed(&key).unwrap().der().to_vec();
        for n in 0..whole.len() {
            assert_eq!(validity(&CertificateDer::from(&whole[..n])), None);
        }
        let (from, until) = validity(&CertificateDer::from(whole)).unwrap();
        assert_eq!(from.as_secs(), days(2020, 1, 2) as u64 * 86_400);
        assert_eq!(until.as_secs(), days(2060, 3, 4) as u64 * 86_400);
    }
}
