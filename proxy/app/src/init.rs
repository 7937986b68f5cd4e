//! `weft-proxy init`: programs the redirection of a pod's connections to its sidecar, then ends.
//!
//! Runs before the walk begins: as an init container (or from a CNI plugin) in the pod's network
//! namespace, with CAP_NET_ADMIN and nothing else. What is captured is decided in
//! `weft_proxy_net::redirect::plan`; here are only the words an operator says it with.
//!
//! Invariant: running it again, with the same or other flags, leaves exactly what the last run said.
//! Invariant: when it fails, nothing has changed and the message says what is missing.

use std::io::Write as _;
use std::net::IpAddr;

use anyhow::Context as _;
use ipnet::IpNet;
use weft_proxy_net::redirect::{self, Capture, Plan, Ports, plan};

/// Redirect this network namespace's TCP connections to the sidecar (nftables, over netlink).
///
/// UDP, DNS, loopback and connections that are already established stay untouched. What is skipped wins
/// over what is included (`--only-...`).
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct InitArgs {
    /// Port the sidecar takes inbound connections on (it must listen on all addresses).
    #[arg(long, env = "WEFT_INBOUND_PORT", default_value_t = plan::INBOUND_PORT, value_name = "PORT")]
    pub inbound_port: u16,
    /// Port the sidecar takes outbound connections on (loopback is enough).
    #[arg(long, env = "WEFT_OUTBOUND_PORT", default_value_t = plan::OUTBOUND_PORT, value_name = "PORT")]
    pub outbound_port: u16,
    /// User the sidecar runs as: its own connections are not captured. Nothing else may run as it.
    #[arg(long, env = "WEFT_PROXY_UID", default_value_t = plan::PROXY_UID, value_name = "UID")]
    pub proxy_uid: u32,
    /// Group whose connections are not captured either.
    #[arg(long, env = "WEFT_PROXY_GID", value_name = "GID")]
    pub proxy_gid: Option<u32>,
    /// Mark (SO_MARK) whose connections are not captured either.
    #[arg(long, env = "WEFT_PROXY_MARK", default_value_t = plan::PROXY_MARK, value_name = "MARK")]
    pub proxy_mark: u32,
    /// Ports of the sidecar's own (metrics, readiness) that stay reachable without it.
    #[arg(
        long,
        env = "WEFT_ADMIN_PORT",
        value_delimiter = ',',
        default_values_t = [plan::ADMIN_PORT],
        value_name = "PORT,..."
    )]
    pub admin_port: Vec<u16>,
    /// Inbound ports or ranges to leave alone, e.g. 22,9000-9100.
    #[arg(long, env = "WEFT_SKIP_INBOUND_PORTS", value_delimiter = ',', value_name = "PORTS")]
    pub skip_inbound_ports: Vec<Ports>,
    /// Sources (networks or addresses) whose inbound connections to leave alone.
    #[arg(long, env = "WEFT_SKIP_INBOUND_CIDRS", value_delimiter = ',', value_parser = network, value_name = "CIDRS")]
    pub skip_inbound_cidrs: Vec<IpNet>,
    /// Outbound ports or ranges to leave alone, e.g. 25,3306.
    #[arg(long, env = "WEFT_SKIP_OUTBOUND_PORTS", value_delimiter = ',', value_name = "PORTS")]
    pub skip_outbound_ports: Vec<Ports>,
    /// Destinations (networks or addresses) to leave alone, e.g. 169.254.169.254,10.96.0.1/32.
    #[arg(long, env = "WEFT_SKIP_OUTBOUND_CIDRS", value_delimiter = ',', value_parser = network, value_name = "CIDRS")]
    pub skip_outbound_cidrs: Vec<IpNet>,
    /// Capture these inbound ports only.
    #[arg(long, env = "WEFT_ONLY_INBOUND_PORTS", value_delimiter = ',', value_name = "PORTS")]
    pub only_inbound_ports: Vec<Ports>,
    /// Capture these outbound ports only.
    #[arg(long, env = "WEFT_ONLY_OUTBOUND_PORTS", value_delimiter = ',', value_name = "PORTS")]
    pub only_outbound_ports: Vec<Ports>,
    /// Capture these destinations only; an address family not named here is left alone.
    #[arg(long, env = "WEFT_ONLY_OUTBOUND_CIDRS", value_delimiter = ',', value_parser = network, value_name = "CIDRS")]
    pub only_outbound_cidrs: Vec<IpNet>,
    /// Remove the redirection instead; connections captured before may break.
    #[arg(long)]
    pub delete: bool,
    /// Print what would be done (`nft -f` takes it) and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl InitArgs {
    /// What these flags ask to be captured.
    pub fn capture(&self) -> Capture {
        Capture {
            inbound_port: self.inbound_port,
            outbound_port: self.outbound_port,
            proxy_uid: self.proxy_uid,
            proxy_gid: self.proxy_gid,
            proxy_mark: self.proxy_mark,
            admin_ports: self.admin_port.clone(),
            skip_inbound_ports: self.skip_inbound_ports.clone(),
            skip_inbound_cidrs: self.skip_inbound_cidrs.clone(),
            only_inbound_ports: self.only_inbound_ports.clone(),
            skip_outbound_ports: self.skip_outbound_ports.clone(),
            skip_outbound_cidrs: self.skip_outbound_cidrs.clone(),
            only_outbound_ports: self.only_outbound_ports.clone(),
            only_outbound_cidrs: self.only_outbound_cidrs.clone(),
        }
    }
}

/// Does what the flags say, in the network namespace of the calling thread.
///
/// # Errors
/// Flags that contradict each other, or what the kernel or the process lacks.
pub fn run(args: InitArgs) -> anyhow::Result<()> {
    let text = carry_out(&args)?;
    std::io::stdout().lock().write_all(text.as_bytes()).context("writing to standard output")
}

/// Does it, and gives what there is to say about it.
fn carry_out(args: &InitArgs) -> anyhow::Result<String> {
    if args.delete {
        let script = format!("add table inet {name}\ndelete table inet {name}\n", name = plan::TABLE);
        if args.dry_run {
            return Ok(script);
        }
        redirect::remove()?;
        return Ok("capture removed: connections go where they are meant to\n".to_owned());
    }
    let plan = Plan::new(&args.capture())?;
    if args.dry_run {
        return Ok(plan.to_string());
    }
    redirect::install(&plan)?;
    Ok(format!(
        "capture in place: inbound TCP to port {}, outbound TCP to port {}, except user {} (see: nft list table inet {})\n",
        args.inbound_port,
        args.outbound_port,
        args.proxy_uid,
        plan::TABLE,
    ))
}

/// A network, or one address as a network of its own.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is neither a network (10.0.0.0/8, fd00::/8) nor an address"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: InitArgs,
    }

    fn parse(flags: &[&str]) -> Result<InitArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("init").chain(flags.iter().copied())).map(|line| line.init)
    }

    #[test]
    fn without_flags_the_defaults_of_the_plan_hold() {
        assert_eq!(parse(&[]).unwrap().capture(), Capture::default());
    }

    #[test]
    fn lists_are_taken_with_commas_ranges_and_plain_addresses() {
        let args = parse(&[
            "--skip-outbound-ports=25,8000-8999",
            "--skip-outbound-cidrs",
            "169.254.169.254,fd00::/8",
            "--admin-port=1,2",
        ])
        .unwrap();
        assert_eq!(args.skip_outbound_ports, [Ports::from(25), Ports { first: 8000, last: 8999 }]);
        assert_eq!(args.skip_outbound_cidrs.first().unwrap().to_string(), "169.254.169.254/32");
        assert_eq!(args.admin_port, [1, 2]);
    }

    #[test]
    fn a_flag_that_cannot_be_read_is_refused_in_words() {
        for flags in ["--skip-inbound-ports=0", "--skip-outbound-cidrs=10.0.0.0/33", "--proxy-uid=root"] {
            assert!(parse(&[flags]).is_err(), "{flags}");
        }
        let error = parse(&["--only-inbound-ports=9-8"]).unwrap_err().to_string();
        assert!(error.contains("range of ports"), "{error}");
    }

    #[test]
    fn a_dry_run_prints_the_table_and_needs_no_privilege() {
        let text = carry_out(&parse(&["--dry-run", "--skip-outbound-ports=25"]).unwrap()).unwrap();
        assert!(text.contains("tcp dport 25 counter return"), "{text}");
        let text = carry_out(&parse(&["--dry-run", "--delete"]).unwrap()).unwrap();
        assert_eq!(text, "add table inet weft\ndelete table inet weft\n");
    }

    #[test]
    fn ports_that_contradict_each_other_are_refused() {
        let args = parse(&["--dry-run", "--inbound-port=4000", "--outbound-port=4000"]).unwrap();
        assert!(carry_out(&args).unwrap_err().to_string().contains("4000"));
    }
}
