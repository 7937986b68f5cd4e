//! Numbers, times and addresses as text, without the formatting machinery: a line has some twenty of them.
//!
//! Invariant: nothing here allocates but by growing the sheet.

use std::io::Write as _;
use std::net::SocketAddr;

/// Writes a number.
pub(super) fn number(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        // One digit; the index is below the length because a number has at most twenty.
        if let Some(digit) = text.get_mut(at) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

/// Writes the last `WIDTH` digits of a number, with zeros before it.
pub(super) fn padded<const WIDTH: usize>(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; WIDTH];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text);
}

/// Writes an address and a port, as they are usually written.
pub(super) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            for (place, byte) in address.ip().octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(byte));
            }
        }
        // A vector takes every byte.
        SocketAddr::V6(address) => drop(write!(out, "[{}]", address.ip())),
    }
    out.push(b':');
    number(out, u64::from(address.port()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_as_everybody_writes_them() {
        for n in [0, 1, 9, 10, 99, 100, 12_345, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(text(|out| number(out, n)), n.to_string());
        }
        assert_eq!(text(|out| padded::<3>(out, 7)), "007");
        assert_eq!(text(|out| padded::<6>(out, 123_456)), "123456");
    }

    #[test]
    fn addresses_are_as_everybody_writes_them() {
        for known in ["10.0.0.9:8080", "255.1.20.0:1", "[fd00::7]:65535", "[::ffff:10.0.0.1]:80"] {
            let parsed: SocketAddr = known.parse().unwrap();
            assert_eq!(text(|out| address(out, parsed)), parsed.to_string());
        }
    }
}
