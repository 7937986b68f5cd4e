//! Transparent capture with a real kernel: `weft-proxy init` in a pod's network namespace, connections
//! over real interfaces, and what a listener behind the redirection sees.
//!
//! ```text
//!   pod  10.77.0.1  fd77::1   eth0 ═══ eth0   outside  10.77.0.2  fd77::2
//! ```
//!
//! Every listener is a [`witness`]: it answers each connection with its own name and the connection's
//! original destination, so a test asks "where did this land?" and reads the answer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser as _;
use ipnet::IpNet;
use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_thread_gid, set_thread_uid};
use rustix::{process::Gid, process::Uid};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use weft_proxy::init::{self, InitArgs};
use weft_proxy_net::redirect::{self, Capture, Plan};
use weft_tests::in_netns;
use weft_tests::netns::{Namespace, has_other_users, join, skip};

/// Longer than any answer takes on a loaded machine; no test waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(30);

struct Place {
    pod: Namespace,
    outside: Namespace,
}

/// The pod and what is outside of it, joined; a witness on each of the sidecar's ports in the pod and on
/// an application's port in both.
fn place() -> Place {
    let place = Place { pod: Namespace::new().unwrap(), outside: Namespace::new().unwrap() };
    let pod = place.pod.end("eth0", &["10.77.0.1/24", "fd77::1/64"]);
    let outside = place.outside.end("eth0", &["10.77.0.2/24", "10.77.0.3/24", "fd77::2/64", "fd77::3/64"]);
    join(&pod, &outside).unwrap();
    for (name, address) in [("inbound", "[::]:15006"), ("application", "[::]:8080"), ("admin", "[::]:15020")]
    {
        witness(&place.pod, name, address);
    }
    for address in ["127.0.0.1:15001", "[::1]:15001"] {
        witness(&place.pod, "outbound", address);
    }
    for address in ["[::]:8080", "[::]:25", "[::]:53"] {
        witness(&place.outside, "outside", address);
    }
    place
}

/// Listens, and tells each connection where it landed and where it was meant to go.
fn witness(namespace: &Namespace, name: &'static str, address: &str) {
    let listener = namespace.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = format!("{name} {}\n", original_destination(&stream));
            // Echo goes on for connections that live through a change of the rules.
            std::thread::spawn(move || {
                let _ = stream.write_all(answer.as_bytes());
                let mut back = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut back);
            });
        }
    });
}

fn original_destination(stream: &TcpStream) -> SocketAddr {
    match stream.local_addr().unwrap().ip().to_canonical().is_ipv4() {
        true => ip_original_dst(stream).map(SocketAddr::V4),
        false => ipv6_original_dst(stream).map(SocketAddr::V6),
    }
    // Without redirection nothing tracks connections, and the kernel knows no original.
    .unwrap_or_else(|_| {
        let local = stream.local_addr().unwrap();
        SocketAddr::new(local.ip().to_canonical(), local.port())
    })
}

/// Where a connection from `namespace` to `address` lands: the witness's name and original destination.
fn lands(namespace: &Namespace, address: &str) -> String {
    namespace.run(|| landing(Socket::new(domain(address), Type::STREAM, None).unwrap(), address))
}

fn landing(socket: Socket, address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    match socket.connect_timeout(&address.into(), DEADLINE) {
        Ok(()) => first_line(&mut TcpStream::from(socket)),
        Err(error) => error.kind().to_string(),
    }
}

fn domain(address: &str) -> Domain {
    Domain::for_address(address.parse().unwrap())
}

fn first_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend_from_slice(&byte);
    }
    String::from_utf8(line).unwrap()
}

/// `weft-proxy init FLAGS` in the namespace.
fn init(namespace: &Namespace, flags: &str) {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        init: InitArgs,
    }
    let words = std::iter::once("init").chain(flags.split_whitespace());
    let args = Line::try_parse_from(words).unwrap().init;
    namespace.run(|| init::run(args)).unwrap();
}

#[test]
fn an_outbound_connection_lands_at_the_sidecar_with_its_original_destination() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "");
        for address in ["10.77.0.2:8080", "[fd77::2]:8080", "10.77.0.2:65535", "[fd77::2]:1"] {
            assert_eq!(lands(&place.pod, address), format!("outbound {address}"));
        }
    });
}

#[test]
fn an_outbound_connection_to_an_address_nobody_has_is_captured_too() {
    in_netns!(|| {
        let place = place();
        place.pod.route("0.0.0.0/0", "10.77.0.2").unwrap();
        place.pod.route("::/0", "fd77::2").unwrap();
        init(&place.pod, "");
        for address in ["10.96.0.10:80", "[2001:db8::1]:443"] {
            assert_eq!(lands(&place.pod, address), format!("outbound {address}"));
        }
    });
}

#[test]
fn an_inbound_connection_lands_at_the_sidecar_with_its_original_destination() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "");
        for address in ["10.77.0.1:8080", "[fd77::1]:8080", "10.77.0.1:9", "[fd77::1]:9"] {
            assert_eq!(lands(&place.outside, address), format!("inbound {address}"));
        }
    });
}

#[test]
fn without_init_nothing_is_captured() {
    in_netns!(|| {
        let place = place();
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outside 10.77.0.2:8080");
        assert_eq!(lands(&place.outside, "[fd77::1]:8080"), "application [fd77::1]:8080");
    });
}

#[test]
fn the_sidecars_own_user_is_not_captured_and_others_are() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "--proxy-uid 0");
        for address in ["10.77.0.2:8080", "[fd77::2]:8080"] {
            assert_eq!(lands(&place.pod, address), format!("outside {address}"));
        }
        init(&place.pod, "");
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outbound 10.77.0.2:8080");
        if has_other_users() {
            let own = place.pod.run(|| {
                set_thread_uid(Uid::from_raw(2102)).unwrap();
                landing(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap(), "10.77.0.2:8080")
            });
            assert_eq!(own, "outside 10.77.0.2:8080");
        }
    });
}

#[test]
fn the_sidecars_own_group_and_mark_are_not_captured() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "--proxy-gid 0");
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outside 10.77.0.2:8080");
        init(&place.pod, "--proxy-gid 4711 --proxy-mark 7");
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outbound 10.77.0.2:8080");
        let marked = |mark: u32| {
            place.pod.run(|| {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
                socket.set_mark(mark).unwrap();
                landing(socket, "[fd77::2]:8080")
            })
        };
        assert_eq!(marked(7), "outside [fd77::2]:8080");
        assert_eq!(marked(8), "outbound [fd77::2]:8080");
        if has_other_users() {
            let own = place.pod.run(|| {
                set_thread_gid(Gid::from_raw(4711)).unwrap();
                landing(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap(), "10.77.0.2:8080")
            });
            assert_eq!(own, "outside 10.77.0.2:8080");
        }
    });
}

#[test]
fn loopback_and_the_pods_own_address_are_never_captured() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "");
        for address in ["127.0.0.1:8080", "[::1]:8080", "10.77.0.1:8080", "[fd77::1]:8080"] {
            assert_eq!(lands(&place.pod, address), format!("application {address}"));
        }
    });
}

#[test]
fn the_sidecar_reaches_its_application_and_by_a_loopback_source_its_own_inbound_side() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "--proxy-uid 0");
        for (address, source) in [("10.77.0.1:8080", "127.0.0.1:0"), ("[fd77::1]:8080", "[::1]:0")] {
            assert_eq!(lands(&place.pod, address), format!("application {address}"));
            let own_call = place.pod.run(|| {
                let socket = Socket::new(domain(address), Type::STREAM, None).unwrap();
                socket.bind(&source.parse::<SocketAddr>().unwrap().into()).unwrap();
                landing(socket, address)
            });
            assert_eq!(own_call, format!("inbound {address}"));
        }
        assert_eq!(lands(&place.pod, "127.0.0.1:8080"), "application 127.0.0.1:8080");
    });
}

#[test]
fn the_sidecars_own_ports_are_reached_from_outside_as_they_are() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "");
        assert_eq!(lands(&place.outside, "10.77.0.1:15020"), "admin 10.77.0.1:15020");
        assert_eq!(lands(&place.outside, "[fd77::1]:15006"), "inbound [fd77::1]:15006");
        init(&place.pod, "--admin-port 8080");
        assert_eq!(lands(&place.outside, "10.77.0.1:8080"), "application 10.77.0.1:8080");
        assert_eq!(lands(&place.outside, "10.77.0.1:15020"), "inbound 10.77.0.1:15020");
    });
}

#[test]
fn skipped_ports_and_networks_are_left_alone() {
    in_netns!(|| {
        let place = place();
        init(
            &place.pod,
            "--skip-outbound-ports 20-30,443 --skip-outbound-cidrs 10.77.0.3,fd77::3/128 \
             --skip-inbound-ports 8000-8100 --skip-inbound-cidrs 10.77.0.3/32",
        );
        for address in ["10.77.0.2:25", "[fd77::2]:25", "10.77.0.3:8080", "[fd77::3]:8080"] {
            assert_eq!(lands(&place.pod, address), format!("outside {address}"));
        }
        for address in ["10.77.0.2:8080", "[fd77::2]:8080", "10.77.0.2:19", "10.77.0.2:31"] {
            assert_eq!(lands(&place.pod, address), format!("outbound {address}"));
        }
        assert_eq!(lands(&place.outside, "10.77.0.1:8080"), "application 10.77.0.1:8080");
        assert_eq!(lands(&place.outside, "[fd77::1]:8101"), "inbound [fd77::1]:8101");
        let from = |source: &str| {
            place.outside.run(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&source.parse::<SocketAddr>().unwrap().into()).unwrap();
                landing(socket, "10.77.0.1:9999")
            })
        };
        assert_eq!(from("10.77.0.2:0"), "inbound 10.77.0.1:9999");
        assert_eq!(from("10.77.0.3:0"), "connection refused");
    });
}

#[test]
fn only_what_is_included_is_captured_when_something_is() {
    in_netns!(|| {
        let place = place();
        init(
            &place.pod,
            "--only-outbound-cidrs 10.77.0.2/31 --only-outbound-ports 8080 --skip-outbound-cidrs 10.77.0.3 \
             --only-inbound-ports 9000-9001",
        );
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outbound 10.77.0.2:8080");
        for address in ["10.77.0.2:25", "10.77.0.3:8080", "[fd77::2]:8080"] {
            assert_eq!(lands(&place.pod, address), format!("outside {address}"));
        }
        assert_eq!(lands(&place.outside, "10.77.0.1:9001"), "inbound 10.77.0.1:9001");
        assert_eq!(lands(&place.outside, "10.77.0.1:8080"), "application 10.77.0.1:8080");
    });
}

#[test]
fn dns_and_udp_are_untouched() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "");
        assert_eq!(lands(&place.pod, "10.77.0.2:53"), "outside 10.77.0.2:53");
        for (here, there) in [("10.77.0.1:0", "10.77.0.2:0"), ("[fd77::1]:0", "[fd77::2]:0")] {
            let client = place.pod.run(|| UdpSocket::bind(here).unwrap());
            let server = place.outside.run(|| UdpSocket::bind(there).unwrap());
            client.send_to(b"?", server.local_addr().unwrap()).unwrap();
            server.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut datagram = [0; 8];
            let (length, from) = server.recv_from(&mut datagram).unwrap();
            assert_eq!((length, from), (1, client.local_addr().unwrap()));
        }
    });
}

#[test]
fn running_init_again_leaves_what_the_last_run_said() {
    in_netns!(|| {
        let place = place();
        witness(&place.pod, "other", "127.0.0.1:16001");
        init(&place.pod, "");
        init(&place.pod, "");
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outbound 10.77.0.2:8080");
        init(&place.pod, "--outbound-port 16001 --skip-outbound-ports 25");
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "other 10.77.0.2:8080");
        assert_eq!(lands(&place.pod, "10.77.0.2:25"), "outside 10.77.0.2:25");
        init(&place.pod, "--outbound-port 16001");
        assert_eq!(lands(&place.pod, "10.77.0.2:25"), "other 10.77.0.2:25");
    });
}

#[test]
fn delete_gives_the_pod_back_and_may_be_repeated() {
    in_netns!(|| {
        let place = place();
        init(&place.pod, "--delete");
        init(&place.pod, "");
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outbound 10.77.0.2:8080");
        for _ in 0..2 {
            init(&place.pod, "--delete");
            assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outside 10.77.0.2:8080");
            assert_eq!(lands(&place.outside, "[fd77::1]:8080"), "application [fd77::1]:8080");
        }
    });
}

#[test]
fn established_connections_live_through_the_first_init_and_through_another() {
    in_netns!(|| {
        let place = place();
        let connect = |from: &Namespace, address: &str| {
            let mut stream = from.run(|| TcpStream::connect(address).unwrap());
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let landed = first_line(&mut stream);
            (stream, landed)
        };
        let echo = |stream: &mut TcpStream| {
            stream.write_all(b"still here\n").unwrap();
            assert_eq!(first_line(stream), "still here");
        };
        let (mut out_before, landed) = connect(&place.pod, "10.77.0.2:8080");
        assert_eq!(landed, "outside 10.77.0.2:8080");
        let (mut in_before, landed) = connect(&place.outside, "[fd77::1]:8080");
        assert_eq!(landed, "application [fd77::1]:8080");

        init(&place.pod, "");
        let (mut captured, landed) = connect(&place.pod, "10.77.0.2:8080");
        assert_eq!(landed, "outbound 10.77.0.2:8080");
        [&mut out_before, &mut in_before, &mut captured].into_iter().for_each(echo);

        init(&place.pod, "--skip-outbound-ports 8080");
        [&mut out_before, &mut in_before, &mut captured].into_iter().for_each(echo);
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outside 10.77.0.2:8080");
    });
}

#[test]
fn without_the_capability_init_says_which_one_is_missing_and_changes_nothing() {
    in_netns!(|| {
        let place = place();
        let refused = place.pod.run(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective -= CapabilitySet::NET_ADMIN;
            sets.permitted -= CapabilitySet::NET_ADMIN;
            sets.inheritable -= CapabilitySet::NET_ADMIN;
            set_capabilities(None, sets).unwrap();
            redirect::install(&Plan::new(&Capture::default()).unwrap()).unwrap_err()
        });
        assert_eq!(refused, redirect::Error::NotPermitted);
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outside 10.77.0.2:8080");
    });
}

#[test]
fn the_table_is_what_nft_makes_of_the_printed_plan() {
    in_netns!(|| {
        if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
            return skip(
                "the_table_is_what_nft_makes_of_the_printed_plan",
                "there is no nft to compare with",
            );
        }
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let ports = |text: &str| vec![text.parse().unwrap(), 443.into()];
        let rich = Capture {
            proxy_gid: Some(2102),
            skip_inbound_ports: ports("22"),
            skip_inbound_cidrs: networks(&["192.0.2.0/24", "2001:db8::/32"]),
            only_inbound_ports: ports("1-65535"),
            skip_outbound_ports: ports("8000-8999"),
            skip_outbound_cidrs: networks(&["10.0.0.0/8", "255.255.255.255/32", "fd00::/9", "fd77::1/128"]),
            only_outbound_ports: ports("60000-65535"),
            only_outbound_cidrs: networks(&["0.0.0.0/1"]),
            ..Capture::default()
        };
        for capture in [Capture::default(), rich] {
            let plan = Plan::new(&capture).unwrap();
            redirect::install(&plan).unwrap();
            let ours = nft_list();
            redirect::remove().unwrap();
            nft_load(&plan.to_string());
            assert_eq!(ours, nft_list());
            assert!(ours.contains(r#"{"redirect":{"port":15001}}"#), "{ours}");
        }
    });
}

/// `nft -j list table inet weft`, without the numbers the kernel gave, and with one way of saying it
/// where nft has two: a set of one member is that member, a network is a range.
fn nft_list() -> String {
    let output = Command::new("nft").args(["-j", "list", "table", "inet", "weft"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    normalise(&mut listing);
    listing["nftables"].as_array().unwrap().iter().map(|object| format!("{object}\n")).collect()
}

fn normalise(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            fields.remove("handle");
            fields.values_mut().for_each(normalise);
            if let Some([member]) = fields.get("set").and_then(Value::as_array).map(Vec::as_slice) {
                *value = member.clone();
            } else if let Some(prefix) = fields.get("prefix") {
                let text = format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]);
                let network: IpNet = text.parse().unwrap();
                let ends = [network.network().to_string(), network.broadcast().to_string()];
                *value = serde_json::json!({ "range": ends });
            }
        }
        _ => {}
    }
}

fn nft_load(script: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

#[test]
fn with_one_capability_and_without_ipv6_a_pod_is_captured_all_the_same() {
    in_netns!(|| {
        let place = place();
        place.pod.set_parameter("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
        // A listener of both families stands without IPv6 as well.
        witness(&place.pod, "late", "[::]:18080");
        assert_eq!(lands(&place.outside, "10.77.0.1:18080"), "late 10.77.0.1:18080");
        let installed = place.pod.run(|| {
            let mut sets = capabilities(None).unwrap();
            sets.inheritable = CapabilitySet::empty();
            for set in [&mut sets.effective, &mut sets.permitted] {
                *set = CapabilitySet::NET_ADMIN;
            }
            set_capabilities(None, sets).unwrap();
            redirect::install(&Plan::new(&Capture::default()).unwrap())
        });
        assert_eq!(installed, Ok(()));
        assert_eq!(lands(&place.pod, "10.77.0.2:8080"), "outbound 10.77.0.2:8080");
        assert_eq!(lands(&place.outside, "10.77.0.1:8080"), "inbound 10.77.0.1:8080");
    });
}
