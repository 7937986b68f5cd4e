//! The transaction's bytes, and what the kernel's refusals are told as.

use super::table::Batch;
use super::*;

/// Type and payload of each request in a batch.
fn requests(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut rest = bytes;
    let mut all = Vec::new();
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        let kind = u16::from_ne_bytes(rest[4..6].try_into().unwrap());
        all.push((kind, rest[16..length].to_vec()));
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "the last request is cut");
    all
}

fn default_batch() -> Batch {
    Batch::replacement(&Plan::new(&Capture::default()).unwrap())
}

#[test]
fn a_replacement_is_one_batch_that_adds_deletes_and_adds_the_table() {
    let batch = default_batch();
    let all = requests(batch.bytes());
    let kinds: Vec<u16> = all.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds[..4], [16, 0xa00, 0xa02, 0xa00], "begin, add, delete, add");
    assert_eq!(kinds.last(), Some(&17), "end");
    assert_eq!(kinds.iter().filter(|kind| **kind == 0xa03).count(), 2, "chains");
    assert_eq!(kinds.iter().filter(|kind| **kind == 0xa06).count(), 14, "rules");
    let sets = kinds.iter().filter(|kind| **kind == 0xa09).count();
    assert_eq!(sets, kinds.iter().filter(|kind| **kind == 0xa0c).count(), "each set has its elements");
    assert_eq!(all[0].1, [0, 0, 0, 10], "the batch is for nftables");
    assert_eq!(all[1].1, [1, 0, 0, 0, 9, 0, 1, 0, b'w', b'e', b'f', b't', 0, 0, 0, 0], "table inet weft");
}

#[cfg(target_endian = "little")]
#[test]
fn a_chain_and_a_redirect_are_what_the_kernel_takes() {
    let batch = default_batch();
    let all = requests(batch.bytes());
    let chain = all.iter().find(|(kind, _)| *kind == 0xa03).unwrap();
    let mut expect = vec![1, 0, 0, 0, 9, 0, 1, 0];
    expect.extend(b"weft\0\0\0\0");
    expect.extend([12, 0, 3, 0]);
    expect.extend(b"inbound\0");
    expect.extend([20, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0xff, 0xff, 0xff, 0x9c]);
    expect.extend([8, 0, 7, 0]);
    expect.extend(b"nat\0");
    assert_eq!(chain.1, expect);

    let (_, rule) = all.iter().rfind(|(kind, _)| *kind == 0xa06).unwrap();
    let port = 15001_u16.to_be_bytes();
    let mut redirect = vec![44, 0, 1, 0x80, 14, 0, 1, 0];
    redirect.extend(b"immediate\0\0\0");
    redirect.extend([24, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 12, 0, 2, 0x80, 6, 0, 1, 0]);
    redirect.extend([port[0], port[1], 0, 0]);
    redirect.extend([28, 0, 1, 0x80, 10, 0, 1, 0]);
    redirect.extend(b"redir\0\0\0");
    redirect.extend([12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1]);
    assert!(rule.windows(redirect.len()).any(|part| part == redirect), "{rule:?}");
    let comment = b"\0\x19to the sidecar, outbound\0";
    assert!(rule.windows(comment.len()).any(|part| part == comment), "{rule:?}");
}

#[test]
fn the_largest_lists_fit_their_attribute() {
    let networks = (0..plan::MAX_ENTRIES as u128).map(|n| {
        let address = std::net::Ipv6Addr::from(0xfd00_u128 << 112 | n << 65);
        ipnet::Ipv6Net::new(address, 64).unwrap().into()
    });
    let capture = Capture { skip_outbound_cidrs: networks.collect(), ..Capture::default() };
    let batch = Batch::replacement(&Plan::new(&capture).unwrap());
    let longest = requests(batch.bytes()).into_iter().map(|(_, payload)| payload.len()).max().unwrap();
    assert!(longest > plan::MAX_ENTRIES * 2 * 28 && longest < usize::from(u16::MAX), "{longest}");
}

#[test]
fn refusals_say_what_is_missing_and_what_to_do() {
    let told = |step, errno| Error::of_step(step, errno).to_string();
    assert!(told(Step::Commit, Errno::PERM).contains("CAP_NET_ADMIN"));
    assert!(told(Step::Table, Errno::OPNOTSUPP).contains("CONFIG_NF_TABLES_INET"));
    assert!(told(Step::Chain("inbound"), Errno::NOENT).contains("nft_chain_nat"));
    assert!(told(Step::Rule("inbound", "x"), Errno::NOENT).contains("nft_redir"));
    assert!(told(Step::Commit, Errno::NOBUFS).contains("nothing was changed"));
    assert!(Error::of_socket(Errno::PROTONOSUPPORT).to_string().contains("nfnetlink"));
}
