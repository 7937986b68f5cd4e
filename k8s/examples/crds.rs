//! Writes the definitions of the kinds (CRDs) into the chart, from the Rust types.
//!
//! Before it: the types of this crate. After it: `k8s/chart/templates/crds`, which a test holds against
//! the types.
//!
//! Invariant: nothing but that folder is written.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/templates/crds");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in weft_k8s::crds::files() {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
