//! The namespaces the other tests stand in, tested themselves: separate, joined, routed, and gone with
//! everything in them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use weft_tests::in_netns;
use weft_tests::netns::{Namespace, join};

/// Sends a word from one namespace to a listener in another and gives what arrives.
fn say(from: &Namespace, to: &Namespace, address: &str) -> String {
    let listener = to.run(|| TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = from.run(|| TcpStream::connect(address).unwrap());
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut heard = String::new();
    listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
    heard
}

#[test]
fn a_fresh_namespace_has_its_own_loopback_and_nothing_else() {
    in_netns!(|| {
        let (one, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        assert_eq!(say(&one, &one, "127.0.0.1:0"), "hello");
        assert_eq!(say(&one, &one, "[::1]:0"), "hello");
        let here = one.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).local_addr().unwrap();
        assert!(other.run(|| TcpStream::connect(here)).is_err(), "loopback leaks between namespaces");
        assert!(one.run(|| TcpListener::bind("10.0.0.1:0")).is_err());
    });
}

#[test]
fn joined_namespaces_speak_over_both_families_and_a_router_carries_them_further() {
    in_netns!(|| {
        let [left, router, right] = [(); 3].map(|()| Namespace::new().unwrap());
        join(
            &left.end("eth0", &["10.1.0.1/24", "fd01::1/64"]),
            &router.end("left", &["10.1.0.254/24", "fd01::ff/64"]),
        )
        .unwrap();
        join(
            &right.end("eth0", &["10.2.0.1/24", "fd02::1/64"]),
            &router.end("right", &["10.2.0.254/24", "fd02::ff/64"]),
        )
        .unwrap();
        assert_eq!(say(&left, &router, "10.1.0.254:0"), "hello");
        assert_eq!(say(&router, &right, "[fd02::1]:0"), "hello");

        left.route("0.0.0.0/0", "10.1.0.254").unwrap();
        left.route("fd02::/64", "fd01::ff").unwrap();
        right.route("10.1.0.0/24", "10.2.0.254").unwrap();
        right.route("::/0", "fd02::ff").unwrap();
        router.set_parameter("net.ipv4.ip_forward", "1").unwrap();
        router.set_parameter("net.ipv6.conf.all.forwarding", "1").unwrap();
        assert_eq!(say(&left, &right, "10.2.0.1:0"), "hello");
        assert_eq!(say(&left, &right, "[fd02::1]:0"), "hello");
    });
}

#[test]
fn a_program_runs_inside_and_ends_with_its_handle() {
    in_netns!(|| {
        let place = Namespace::new().unwrap();
        let mut program = Command::new("cat");
        let mut running = place.spawn(program.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        let mut out = running.child().stdout.take().unwrap();
        let mut input = running.child().stdin.take().unwrap();
        input.write_all(b"x").unwrap();
        out.read_exact(&mut [0]).unwrap();
        drop(running);
        // Its end of the pipe is closed although ours is not: the process is gone.
        assert_eq!(out.read(&mut [0]).unwrap(), 0);
        assert!(input.write_all(b"y").is_err());
    });
}

#[test]
#[should_panic(expected = "inside the namespace")]
fn a_failure_inside_is_a_failure_outside() {
    if std::env::var("WEFT_NETNS_TEST").is_ok() {
        // Inside, the process must fail although panicking is what this test waits for.
        std::process::exit(3);
    }
    in_netns!(|| ());
}
