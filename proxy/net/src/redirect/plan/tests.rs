//! The plan as text: what an operator reads is what is tested.

use super::*;

fn rules(capture: &Capture, chain: &str) -> Vec<String> {
    let plan = Plan::new(capture).unwrap();
    let chain = plan.chains.iter().find(|c| c.name == chain).unwrap();
    chain.rules.iter().map(|rule| rule.to_string()).collect()
}

fn position(rules: &[String], part: &str) -> usize {
    rules.iter().position(|rule| rule.contains(part)).unwrap_or_else(|| panic!("no {part:?} in {rules:#?}"))
}

#[test]
fn the_default_plan_reads_like_the_table_in_its_documentation() {
    let expect = r#"add table inet weft
delete table inet weft
table inet weft {
	chain inbound {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto != tcp counter return comment "UDP and all else"
		iifname "lo" counter return comment "inside the pod"
		tcp dport { 15001, 15006, 15020 } counter return comment "the sidecar's own ports"
		tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15006 comment "to the sidecar, inbound"
	}
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp counter return comment "UDP and all else"
		tcp dport 53 counter return comment "DNS over TCP"
		oifname "lo" meta skuid 2102 ip saddr 127.0.0.0/8 ip daddr != 127.0.0.0/8 tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15006 comment "the sidecar calling its own pod"
		oifname "lo" meta skuid 2102 ip6 saddr ::1 ip6 daddr != ::1 tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15006 comment "the sidecar calling its own pod"
		oifname "lo" meta mark 0x836 ip saddr 127.0.0.0/8 ip daddr != 127.0.0.0/8 tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15006 comment "the sidecar calling its own pod"
		oifname "lo" meta mark 0x836 ip6 saddr ::1 ip6 daddr != ::1 tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15006 comment "the sidecar calling its own pod"
		meta skuid 2102 counter return comment "the sidecar's own"
		meta mark 0x836 counter return comment "the sidecar's own"
		oifname "lo" counter return comment "inside the pod"
		tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15001 comment "to the sidecar, outbound"
	}
}
"#;
    assert_eq!(Plan::new(&Capture::default()).unwrap().to_string(), expect);
}

#[test]
fn the_sidecar_and_loopback_are_left_alone_before_anything_else_is_asked() {
    let capture = Capture { proxy_gid: Some(7), ..Capture::default() };
    let rules = rules(&capture, OUTBOUND_CHAIN);
    let last = position(&rules, "redirect to :15001");
    assert_eq!(last, rules.len() - 1);
    for own in
        ["meta skuid 2102 counter return", "meta skgid 7 counter return", "meta mark 0x836 counter return"]
    {
        assert!(position(&rules, own) < position(&rules, "oifname \"lo\" counter return"));
    }
}

#[test]
fn what_is_skipped_wins_over_what_is_included() {
    let capture = Capture {
        skip_outbound_ports: vec!["25".parse().unwrap()],
        skip_outbound_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        only_outbound_ports: vec!["1-1000".parse().unwrap()],
        only_outbound_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        skip_inbound_ports: vec!["22".parse().unwrap()],
        skip_inbound_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
        only_inbound_ports: vec!["8000-8999".parse().unwrap()],
        ..Capture::default()
    };
    let out = rules(&capture, OUTBOUND_CHAIN);
    assert!(position(&out, "tcp dport 25") < position(&out, "tcp dport != 1-1000"));
    assert!(position(&out, "ip daddr 10.9.0.0/16") < position(&out, "ip daddr != 10.0.0.0"));
    assert!(position(&out, "ip6 daddr != fd00::") < position(&out, "redirect to :15001"));
    let inb = rules(&capture, INBOUND_CHAIN);
    assert!(position(&inb, "tcp dport 22") < position(&inb, "tcp dport != 8000-8999"));
    assert!(position(&inb, "ip saddr 192.0.2.0/24") < position(&inb, "redirect to :15006"));
}

#[test]
fn a_family_without_an_included_network_is_left_alone_whole() {
    let only =
        |network: &str| Capture { only_outbound_cidrs: vec![network.parse().unwrap()], ..Capture::default() };
    position(&rules(&only("10.0.0.0/8"), OUTBOUND_CHAIN), "meta nfproto ipv6 counter return");
    position(&rules(&only("fd00::/8"), OUTBOUND_CHAIN), "meta nfproto ipv4 counter return");
}

#[test]
fn a_capture_that_cannot_be_is_refused_with_the_setting_named() {
    let refused = |capture: Capture| Plan::new(&capture).unwrap_err().to_string();
    assert!(refused(Capture { inbound_port: 0, ..Capture::default() }).contains("inbound port is 0"));
    assert!(refused(Capture { inbound_port: 15001, ..Capture::default() }).contains("15001"));
    let many = vec![Ports::from(1); MAX_ENTRIES + 1];
    assert!(
        refused(Capture { skip_outbound_ports: many, ..Capture::default() }).contains("skip-outbound-ports")
    );
}
