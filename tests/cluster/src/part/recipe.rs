//! The table of parts: what is built, at which version, under which name.
//!
//! Invariant: the version stands here and in the recipe's `go.mod`; a test compares them.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

/// Where a part is made of.
#[derive(Debug)]
pub(super) enum Origin {
    /// A module of our own that names it: a folder in `parts/`, with every version and checksum.
    Recipe,
    /// A Go module that is a program itself, built as it is published: its own `go.mod` and `go.sum` pin the rest.
    Module {
        /// Its path.
        path: &'static str,
        /// Its checksum.
        sum: &'static str,
        /// What else the linker is told.
        flags: &'static str,
    },
    /// A file of Maven's central repository.
    Jar {
        /// Group, artifact, version, type and classifier.
        coordinates: &'static str,
        /// The name it is published under.
        file: &'static str,
        /// Its SHA-256.
        sha256: &'static str,
    },
}

/// A third-party program, or a few of one origin.
#[derive(Debug)]
pub struct Part {
    /// Its folder in `parts/`, and the beginning of its folder's name in the cache.
    pub name: &'static str,
    /// The version of the module that it is about.
    pub version: &'static str,
    /// What is built.
    pub targets: &'static [Target],
    /// Further names of a program: name, program.
    pub links: &'static [(&'static str, &'static str)],
    /// Files or folders taken from a module as they are.
    pub copies: &'static [Copied],
    /// What it is made of.
    pub(super) origin: Origin,
    /// Packages whose version variables are set to [`version`](Self::version).
    stamps: &'static [&'static str],
}

/// One program of a part.
#[derive(Debug)]
pub struct Target {
    /// The Go package.
    pub package: &'static str,
    /// The file's name.
    pub program: &'static str,
    /// It is a package's tests, built to be run later.
    test: bool,
}

/// A file or folder of a module.
#[derive(Debug)]
pub struct Copied {
    /// The module.
    pub module: &'static str,
    /// Its path there.
    pub from: &'static str,
    /// Its name in the part's folder.
    pub to: &'static str,
}

impl Target {
    const fn new(package: &'static str, program: &'static str) -> Self {
        Self { package, program, test: false }
    }
}

/// Every program of Kubernetes and etcd in one binary, which goes by the name it is called by.
///
/// Source: 1.34 is the last release that accepts a machine with cgroup v1 and containerd 1.6 without
/// being told.
pub const KUBERNETES: Part = Part {
    name: "kubernetes",
    version: "1.34.4",
    targets: &[Target::new(".", "kubernetes")],
    links: &[
        ("etcd", "kubernetes"),
        ("kube-apiserver", "kubernetes"),
        ("kube-controller-manager", "kubernetes"),
        ("kube-proxy", "kubernetes"),
        ("kube-scheduler", "kubernetes"),
        ("kubectl", "kubernetes"),
        ("kubelet", "kubernetes"),
    ],
    copies: &[],
    origin: Origin::Recipe,
    stamps: &["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"],
};

/// CoreDNS, with the plugins that a cluster without an outside needs.
pub const NAME_SERVER: Part = part("dns", "1.13.1", &[Target::new(".", "coredns")]);

/// What holds a pod's namespaces.
pub const PAUSE: Part = part("pause", "1", &[Target::new(".", "pause")]);

/// Istio's echo server and client: the workload of the tests, and what the conformance suite calls.
pub const ECHO: Part = part(
    "echo",
    "0.0.0-20260827124520-eed52ebb66ad",
    &[
        Target::new("istio.io/istio/pkg/test/echo/cmd/server", "server"),
        Target::new("istio.io/istio/pkg/test/echo/cmd/client", "client"),
    ],
);

/// The Gateway API's kinds: `standard` and `experimental` are folders of CRDs.
pub const GATEWAY_API: Part = Part {
    copies: &[
        Copied { module: "sigs.k8s.io/gateway-api", from: "config/crd/standard", to: "standard" },
        Copied { module: "sigs.k8s.io/gateway-api", from: "config/crd/experimental", to: "experimental" },
    ],
    ..part("gateway-api", "1.6.3", &[])
};

/// The Gateway API's conformance suite, with the manifests of its mesh workloads.
pub const CONFORMANCE: Part = Part {
    copies: &[Copied {
        module: "sigs.k8s.io/gateway-api/conformance",
        from: "mesh/manifests.yaml",
        to: "manifests.yaml",
    }],
    ..part("conformance", "1.6.3", &[Target { package: ".", program: "conformance", test: true }])
};

/// Helm.
pub const HELM: Part = part("helm", "3.18.6", &[Target::new("helm.sh/helm/v3/cmd/helm", "helm")]);

/// Jaeger, which is a collector of OpenTelemetry's as well. 2.13.0 is version 1.76.0 of its module.
pub const JAEGER: Part = Part {
    origin: Origin::Module {
        path: "github.com/jaegertracing/jaeger",
        sum: "h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g=",
        flags: " -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v2.13.0",
    },
    ..part("jaeger", "1.76.0", &[Target::new("./cmd/jaeger", "jaeger")])
};

/// Zipkin's server, with its web page: `zipkin.jar`, for Java 17.
pub const ZIPKIN: Part = Part {
    origin: Origin::Jar {
        coordinates: "io.zipkin:zipkin-server:3.5.1:jar:exec",
        file: "zipkin-server-3.5.1-exec.jar",
        sha256: "7ac633a6832647e71e50012a5e3e91fbc7054414955261724526030faf271d8d",
    },
    ..part("zipkin", "3.5.1", &[])
};

const fn part(name: &'static str, version: &'static str, targets: &'static [Target]) -> Part {
    Part { name, version, targets, links: &[], copies: &[], origin: Origin::Recipe, stamps: &[] }
}

impl Part {
    /// The folder of its recipe.
    pub fn recipe(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("parts").join(self.name)
    }

    /// Go's arguments, without the output and the package.
    pub(super) fn arguments(&self, target: &Target) -> Vec<String> {
        let verb: &[&str] = if target.test { &["test", "-c"] } else { &["build"] };
        let flags = ["-mod=readonly", "-trimpath", "-ldflags"];
        verb.iter().chain(&flags).map(|word| (*word).to_owned()).chain([self.linker_flags()]).collect()
    }

    fn linker_flags(&self) -> String {
        let mut parts = self.version.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let stamp = |package: &&str| {
            format!(
                " -X {package}.gitVersion=v{} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
                 -X {package}.gitTreeState=clean -X {package}.gitCommit={:040}",
                self.version, 0
            )
        };
        let flags = match self.origin {
            Origin::Module { flags, .. } => flags.to_owned(),
            Origin::Recipe | Origin::Jar { .. } => String::new(),
        };
        std::iter::once("-s -w".to_owned()).chain(self.stamps.iter().map(stamp)).chain([flags]).collect()
    }

    /// Twelve letters that change with the recipe.
    pub(super) fn hash(&self) -> std::io::Result<String> {
        let mut files: Vec<PathBuf> = Vec::new();
        if matches!(self.origin, Origin::Recipe) {
            for entry in std::fs::read_dir(self.recipe())? {
                files.push(entry?.path());
            }
        }
        files.sort();
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(format!("{self:?}").as_bytes());
        for file in files {
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update(&std::fs::read(&file)?);
        }
        Ok(hash.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&Part; 9] =
        [&KUBERNETES, &NAME_SERVER, &PAUSE, &ECHO, &GATEWAY_API, &CONFORMANCE, &HELM, &JAEGER, &ZIPKIN];

    #[test]
    fn a_parts_version_is_the_one_its_recipe_pins() {
        let recipes = ALL.into_iter().filter(|part| matches!(part.origin, Origin::Recipe));
        for part in recipes.filter(|part| part.name != PAUSE.name) {
            let recipe = std::fs::read_to_string(part.recipe().join("go.mod")).unwrap();
            assert!(recipe.contains(&format!(" v{}", part.version)), "{} {}", part.name, part.version);
        }
    }

    #[test]
    fn recipes_have_different_hashes_that_stay() {
        let hashes: std::collections::BTreeSet<String> =
            ALL.iter().map(|part| part.hash().unwrap()).collect();
        assert_eq!(hashes.len(), ALL.len());
        assert_eq!(ECHO.hash().unwrap(), ECHO.hash().unwrap());
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = KUBERNETES.linker_flags();
        assert!(flags.contains(" -X k8s.io/component-base/version.gitVersion=v1.34.4"), "{flags}");
        assert!(flags.contains(".gitMinor=34 "), "{flags}");
    }
}
