//! `weft install`: what an installation is made of, as YAML on standard output.
//!
//! `weft install | kubectl apply --server-side -f -`. The chart inside this binary is rendered; no
//! cluster is asked, so the same flags give the same text anywhere.
//!
//! Invariant: nothing is decided here; the chart says what there is, `weft-k8s` renders it.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use weft_k8s::chart::{self, Part, Values};

/// Namespace of the control plane. Source: the chart's; sidecars look for it there.
pub(crate) const NAMESPACE: &str = "weft-system";

/// Settings of an installation.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstallArgs {
    /// Namespace of the control plane.
    #[arg(long, short, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    #[command(flatten)]
    give: Give,
}

/// What a person may decide about an installation.
#[derive(Debug, Clone, Args)]
pub(crate) struct Give {
    /// Several replicas that stay apart from each other, and pods that wait rather than start without a
    /// sidecar.
    #[arg(long)]
    ha: bool,
    /// A value of the chart, e.g. replicas=2 or proxy.resources.cpuRequest=20m. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A file of values (YAML). Repeatable; later files and --set win.
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Only the definitions of the kinds.
    #[arg(long, conflicts_with = "skip_crds")]
    crds_only: bool,
    /// Everything but the definitions of the kinds.
    #[arg(long)]
    skip_crds: bool,
}

impl Give {
    /// Adds what was given to what was given before.
    ///
    /// # Errors
    /// A file that cannot be read, or a value of another form.
    pub(crate) fn onto(&self, values: &mut Values) -> anyhow::Result<()> {
        values.ha |= self.ha;
        for file in &self.values {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            values.file(&text).with_context(|| file.display().to_string())?;
        }
        for set in &self.set {
            values.set(set).context("--set")?;
        }
        Ok(())
    }

    /// Which part is printed.
    pub(crate) fn part(&self) -> Part {
        match (self.crds_only, self.skip_crds) {
            (true, _) => Part::Crds,
            (_, true) => Part::WithoutCrds,
            _ => Part::All,
        }
    }
}

/// Prints the objects.
pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let mut values = Values::default();
    args.give.onto(&mut values)?;
    print(&chart::install(&args.namespace, &values, args.give.part())?)
}

/// Writes to standard output; a reader that has seen enough is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_control_plane::kubernetes::watch::kinds::WATCHED;

    use super::*;

    fn objects() -> Vec<Value> {
        serde_saphyr::from_multiple(&chart::install(NAMESPACE, &Values::default(), Part::All).unwrap())
            .unwrap()
    }

    fn allowed(role: &str, group: &str, resource: &str, verb: &str) -> bool {
        let objects = objects();
        let of_it = objects.iter().filter(|object| object["metadata"]["name"] == role);
        let mut rules = of_it.flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default());
        let has = |rule: &Value, part: &str, value: &str| {
            rule[part].as_array().is_some_and(|list| list.contains(&json!(value)))
        };
        rules.any(|rule| {
            has(&rule, "apiGroups", group) && has(&rule, "resources", resource) && has(&rule, "verbs", verb)
        })
    }

    #[test]
    fn the_control_plane_may_read_every_kind_that_it_watches_and_write_none() {
        for watched in WATCHED {
            let may = |verb| allowed("weft-control-plane-watch", watched.group, watched.plural, verb);
            assert!(may("list") && may("watch"), "{}.{}", watched.plural, watched.group);
            for verb in ["create", "update", "patch", "delete"] {
                assert!(!may(verb), "{verb} {}", watched.plural);
            }
            if ["weft.dev", "gateway.networking.k8s.io"].contains(&watched.group) {
                let status = format!("{}/status", watched.plural);
                assert!(allowed("weft-control-plane-status", watched.group, &status, "patch"), "{status}");
            }
        }
    }

    #[test]
    fn the_injector_takes_the_settings_that_the_chart_makes() {
        for set in [&[][..], &["proxy.otlp=http://jaeger:4317", "proxy.drainLinger=3s", "proxy.env.A=1"]] {
            let mut values = Values::default();
            set.iter().for_each(|set| values.set(set).unwrap());
            let text = chart::install("mesh", &values, Part::All).unwrap();
            let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let map = objects.iter().find(|object| object["data"].get("injector.yaml").is_some()).unwrap();
            let settings = map["data"]["injector.yaml"].as_str().unwrap();
            let config: weft_control_plane_core::inject::InjectorConfig =
                serde_saphyr::from_str(settings).unwrap();
            config.check().unwrap();
            assert_eq!(config.control_plane, "weft-control-plane.mesh.svc:15010");
            assert_eq!(config.control_plane_namespace, "mesh");
            assert_eq!(config.image, format!("localhost/weft/weft-proxy:{}", chart::version()));
        }
    }

    #[test]
    fn the_control_plane_understands_the_arguments_that_the_chart_gives() {
        use clap::Parser as _;
        let objects = objects();
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
        let line = std::iter::once("weft-control-plane".to_owned()).chain(arguments);
        weft_control_plane::Args::try_parse_from(line).unwrap();
    }
}
