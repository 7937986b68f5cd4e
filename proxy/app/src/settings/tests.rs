//! Settings from the command line and the environment, and what they refuse.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    run: RunArgs,
}

/// The least that `run` needs, and one listener.
const LEAST: [&str; 10] = [
    "weft-proxy",
    "--workload",
    "shop/cart-0",
    "--control-plane",
    "127.0.0.1:15010",
    "--trust-anchors",
    "/etc/weft/roots.pem",
    "--outbound",
    "127.0.10.1:80=shop/catalog:80",
    "--join-token=secret-token",
];

fn args(more: &[&str]) -> RunArgs {
    Command::try_parse_from(LEAST.iter().chain(more)).map(|command| command.run).unwrap()
}

fn settings(more: &[&str]) -> Settings {
    args(more).lower_on(None).unwrap()
}

fn refusal(more: &[&str]) -> String {
    match Command::try_parse_from(LEAST.iter().chain(more)) {
        Ok(command) => command.run.lower_on(None).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_least_gives_documented_defaults() {
    let settings = settings(&[]);
    assert_eq!(
        settings.control_plane_identity.to_string(),
        "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane"
    );
    assert_eq!(settings.workers.get(), 1);
    assert_eq!(settings.admin.to_string(), "127.0.0.1:15020");
    assert_eq!(settings.access_log, AccessLogChoice::Mesh);
    assert_eq!(settings.access_log_file, AccessLogSink::Stdout);
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.state_dir, None);
}

#[test]
fn trust_anchors_come_in_exactly_one_form() {
    let with = |anchors: &[&str]| {
        let least = LEAST.iter().filter(|arg| !["--trust-anchors", "/etc/weft/roots.pem"].contains(arg));
        match Command::try_parse_from(least.chain(anchors)) {
            Ok(command) => command
                .run
                .lower_on(None)
                .map(|settings| settings.trust_anchors.to_string())
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    let pem = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
    assert_eq!(with(&["--trust-anchors-pem", &pem]), Ok("1 given inline".to_owned()));
    assert_eq!(with(&["--trust-anchors", "roots.pem"]), Ok("file roots.pem".to_owned()));
    assert!(with(&[]).unwrap_err().contains("WEFT_TRUST_ANCHORS_PEM"));
    assert!(with(&["--trust-anchors-pem", "text"]).unwrap_err().contains("BEGIN CERTIFICATE"));
    assert!(
        with(&["--trust-anchors", "roots.pem", "--trust-anchors-pem", &pem])
            .unwrap_err()
            .contains("cannot be used with")
    );
}

#[test]
fn the_control_planes_identity_follows_the_trust_domain() {
    let settings = settings(&["--trust-domain", "corp.example"]);
    assert_eq!(
        settings.control_plane_identity.to_string(),
        "spiffe://corp.example/ns/weft-system/sa/weft-control-plane"
    );
}

#[test]
fn explicit_listeners_are_read_in_both_forms() {
    let settings = settings(&[
        "--inbound",
        "127.0.10.1:8080=127.0.0.1:18081",
        "--inbound",
        "[::1]:0=[::1]:18082#9090",
        "--outbound",
        "[::1]:81=shop/catalog:80",
    ]);
    assert_eq!(settings.inbound[0].port, 8080);
    assert_eq!(settings.inbound[1].port, 9090);
    assert_eq!(settings.inbound[1].target.to_string(), "[::1]:18082");
    assert_eq!(settings.outbound.len(), 2);
    assert_eq!(settings.pinned().len(), 1, "one service, two listeners");
}

#[test]
fn what_does_not_add_up_is_refused_with_what_to_do() {
    let table: [(&[&str], &str); 12] = [
        (&["--trust-domain", "Corp"], "not a DNS name"),
        (&["--control-plane-identity", "spiffe://other/ns/a/sa/b"], "outside --trust-domain"),
        (&["--control-plane-identity", "https://other"], "spiffe://<trust-domain>"),
        (&["--workers", "0"], "1 to 8"),
        (&["--workers", "9"], "1 to 8"),
        (&["--outbound", "127.0.10.1:80=shop/other:80"], "two listeners"),
        (&["--admin", "127.0.10.1:80"], "two listeners"),
        (&["--outbound", "127.0.10.1:80"], "LISTEN=NAMESPACE/SERVICE:PORT"),
        (&["--inbound", "127.0.10.1:80=127.0.0.1:0"], "LISTEN=TARGET[#PORT]"),
        (&["--header-timeout", "10"], "with its unit"),
        (&["--max-connections", "0"], "at least 1"),
        (&["--h2-stream-window", "4294967295"], "window of HTTP/2"),
    ];
    for (more, expected) in table {
        let refusal = refusal(more);
        assert!(refusal.contains(expected), "{more:?}: {refusal}");
    }
}

#[test]
fn a_control_plane_is_a_host_and_a_port() {
    for text in ["weft-control-plane.weft-system.svc:15010", "10.0.0.1:1", "[fd00::7]:15010"] {
        assert_eq!(text.parse::<ControlPlane>().unwrap().to_string(), text);
    }
    for text in ["", "host", "host:0", "host:70000", ":1", "fd00::7:1", "[nonsense]:1", "a b:1", "http://a:1"]
    {
        assert!(text.parse::<ControlPlane>().is_err(), "{text}");
    }
}

#[test]
fn a_sidecar_without_listener_or_token_says_which_flags_help() {
    let mut bare = args(&[]);
    bare.outbound.clear();
    assert_eq!(bare.clone().lower_on(None).unwrap_err(), SettingsError::NoListener);
    bare.join_token = None;
    assert!(bare.lower_on(None).unwrap_err().to_string().contains("--join-token-file"));
}

#[test]
fn the_echo_names_every_setting_but_no_secret() {
    let settings = settings(&["--zone", "eu-1"]);
    let json = settings.to_json();
    assert_eq!(json["workload"], "shop/cart-0");
    assert_eq!(json["outbound"][0]["service"], "shop/catalog:80");
    assert_eq!(json["limits"]["lookup_timeout"], "1000ms");
    assert_eq!(json["join_token"], "given");
    assert!(!json.to_string().contains("secret-token"));
    assert!(!format!("{settings:?}").contains("secret-token"));
}

#[test]
fn a_token_file_is_read_at_each_use() {
    let path = crate::testing::scratch("token").join("token");
    std::fs::write(&path, "first\n").unwrap();
    let token = JoinToken::File(path.clone());
    assert_eq!(token.read().unwrap().as_str(), "first");
    std::fs::write(&path, "second").unwrap();
    assert_eq!(token.read().unwrap().as_str(), "second");
    std::fs::remove_file(&path).unwrap();
    assert!(token.read().is_err());
}

#[test]
fn every_flag_has_a_variable_of_its_name() {
    use clap::CommandFactory;
    for arg in Command::command().get_arguments().filter(|arg| arg.get_long() != Some("help")) {
        let flag = arg.get_long().unwrap();
        let expected = format!("WEFT_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(expected.as_str()), "--{flag}");
        assert!(arg.get_help().is_some(), "--{flag} is explained");
    }
}
