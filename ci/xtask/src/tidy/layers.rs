//! Which crate may depend on which: every arrow runs down.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Problem;

/// Our crates, lowest first, each with those it may depend on.
const LAYERS: &[(&str, &[&str])] = &[
    ("wavetank-port", &[]),
    ("wavetank-distribution", &["wavetank-port"]),
    (
        "wavetank-containerd",
        &["wavetank-port", "wavetank-distribution"],
    ),
    (
        "wavetank-podman",
        &["wavetank-port", "wavetank-distribution"],
    ),
    ("wavetank-oci", &["wavetank-port", "wavetank-distribution"]),
    ("wavetank-fixtures", &["wavetank-port"]),
    (
        "wavetank-conformance",
        &[
            "wavetank-port",
            "wavetank-fixtures",
            "wavetank-containerd",
            "wavetank-podman",
            "wavetank-oci",
        ],
    ),
    ("wavetank-model", &["wavetank-port"]),
    ("wavetank-core", &["wavetank-port", "wavetank-model"]),
    (
        "wavetank-node",
        &[
            "wavetank-port",
            "wavetank-distribution",
            "wavetank-containerd",
            "wavetank-podman",
            "wavetank-oci",
            "wavetank-model",
            "wavetank-core",
        ],
    ),
    ("wavetank-trace", &["wavetank-port", "wavetank-model"]),
    (
        "wavetank-scenario",
        &["wavetank-port", "wavetank-model", "wavetank-trace"],
    ),
    (
        "wavetank-checkers",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-trace",
            "wavetank-scenario",
        ],
    ),
    (
        "wavetank-world",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-trace",
            "wavetank-scenario",
        ],
    ),
    (
        "wavetank-sim-runtime",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-world",
        ],
    ),
    (
        "wavetank-sim-arm",
        &[
            "wavetank-port",
            "wavetank-fixtures",
            "wavetank-conformance",
            "wavetank-model",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-world",
            "wavetank-sim-runtime",
        ],
    ),
    (
        "wavetank-engine",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-core",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-checkers",
            "wavetank-world",
        ],
    ),
    (
        "wavetank-shells",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-core",
            "wavetank-node",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-checkers",
            "wavetank-world",
            "wavetank-sim-runtime",
            "wavetank-engine",
        ],
    ),
    (
        "wavetank-live",
        &[
            "wavetank-port",
            "wavetank-containerd",
            "wavetank-podman",
            "wavetank-oci",
            "wavetank-fixtures",
            "wavetank-model",
            "wavetank-node",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-checkers",
            "wavetank-world",
            "wavetank-engine",
        ],
    ),
    (
        "wavetank-mutants",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-core",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-checkers",
            "wavetank-world",
            "wavetank-engine",
        ],
    ),
    (
        "wavetank-reports",
        &[
            "wavetank-port",
            "wavetank-model",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-checkers",
        ],
    ),
    (
        "wavetank",
        &[
            "wavetank-port",
            "wavetank-containerd",
            "wavetank-podman",
            "wavetank-oci",
            "wavetank-fixtures",
            "wavetank-conformance",
            "wavetank-sim-runtime",
            "wavetank-sim-arm",
            "wavetank-model",
            "wavetank-node",
            "wavetank-trace",
            "wavetank-scenario",
            "wavetank-checkers",
            "wavetank-world",
            "wavetank-engine",
            "wavetank-shells",
            "wavetank-live",
            "wavetank-reports",
        ],
    ),
    ("xtask", &[]),
];

/// What tests of a crate may use although it is above: the suite is tested on its simulated arm.
const UP_IN_TESTS: &[(&str, &str)] = &[
    ("wavetank-conformance", "wavetank-sim-arm"),
    ("wavetank-podman", "wavetank-fixtures"),
];

/// Crates in which nothing may depend on what is random, concurrent or bound to a machine.
const DETERMINISTIC: &[&str] = &[
    "wavetank-port",
    "wavetank-model",
    "wavetank-core",
    "wavetank-trace",
    "wavetank-checkers",
    "wavetank-world",
    "wavetank-engine",
];

/// Crates whose very purpose breaks determinism.
const BANNED_IN_DETERMINISTIC: &[&str] = &[
    "tokio",
    "async-std",
    "futures",
    "rand",
    "getrandom",
    "rayon",
    "chrono",
    "uuid",
    "ahash",
];

/// Checks the workspace as cargo sees it.
pub fn check(root: &Path) -> anyhow::Result<Vec<Problem>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    Ok(check_metadata(&metadata, root))
}

fn check_metadata(metadata: &Value, root: &Path) -> Vec<Problem> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .flat_map(|package| check_package(package, root))
        .collect()
}

fn check_package(package: &Value, root: &Path) -> Vec<Problem> {
    let name = package["name"].as_str().unwrap_or_default();
    let manifest = manifest_path(package, root);
    let problem = |what: String| Problem {
        path: manifest.clone(),
        line: 1,
        what,
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![problem(format!(
            "`{name}` has no place in the table of layers"
        ))];
    };
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter_map(|dependency| {
            let other = dependency["name"].as_str()?;
            let kind = dependency["kind"].as_str();
            if kind == Some("dev") && UP_IN_TESTS.contains(&(name, other)) {
                return None;
            }
            check_ours(name, &manifest, other, dependency["path"].as_str(), allowed)
                .or_else(|| check_foreign(name, other, kind))
        })
        .map(problem)
        .collect()
}

/// An arrow between two of our own crates.
fn check_ours(
    name: &str,
    manifest: &str,
    other: &str,
    path: Option<&str>,
    allowed: &[&str],
) -> Option<String> {
    let path = path?;
    if manifest.starts_with("orchestrator/") && path.split('/').any(|part| part == "sim") {
        return Some(format!(
            "`{name}` ships and may not depend on `{other}`, which does not"
        ));
    }
    (!allowed.contains(&other)).then(|| format!("`{name}` may not depend on `{other}`"))
}

/// An arrow from a deterministic crate to somebody else's. Tests may use what they like.
fn check_foreign(name: &str, other: &str, kind: Option<&str>) -> Option<String> {
    let banned = kind != Some("dev")
        && DETERMINISTIC.contains(&name)
        && BANNED_IN_DETERMINISTIC.contains(&other);
    banned.then(|| format!("`{name}` is deterministic and may not depend on `{other}`"))
}

fn manifest_path(package: &Value, root: &Path) -> String {
    let path = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{LAYERS, check_metadata};

    fn problems(name: &str, folder: &str, dependency: &Value) -> Vec<String> {
        let metadata = json!({ "packages": [{
            "name": name,
            "manifest_path": format!("/r/{folder}/Cargo.toml"),
            "dependencies": [dependency],
        }]});
        check_metadata(&metadata, Path::new("/r"))
            .into_iter()
            .map(|p| p.what)
            .collect()
    }

    #[test]
    fn an_arrow_that_runs_up_is_named() {
        let dependency = json!({ "name": "wavetank-engine", "path": "/r/sim/engine" });
        assert_eq!(
            problems("wavetank-world", "sim/world", &dependency),
            ["`wavetank-world` may not depend on `wavetank-engine`"]
        );
    }

    #[test]
    fn what_ships_may_not_depend_on_the_testbed() {
        let dependency = json!({ "name": "wavetank-trace", "path": "/r/sim/trace" });
        assert_eq!(
            problems("wavetank-core", "orchestrator/core", &dependency),
            ["`wavetank-core` ships and may not depend on `wavetank-trace`, which does not"]
        );
    }

    #[test]
    fn a_deterministic_crate_may_not_depend_on_a_runtime() {
        let dependency = json!({ "name": "tokio", "kind": null });
        assert_eq!(
            problems("wavetank-core", "orchestrator/core", &dependency).len(),
            1
        );
        let test_only = json!({ "name": "tokio", "kind": "dev" });
        assert_eq!(
            problems("wavetank-core", "orchestrator/core", &test_only).len(),
            0
        );
    }

    #[test]
    fn an_arrow_may_run_up_in_tests_only_where_the_list_says_so() {
        let arrow = |name, kind| json!({ "name": name, "kind": kind, "path": "/r/sim/arm" });
        let suite = "wavetank-conformance";
        let found = |dependency| problems(suite, "runtime-adapters/conformance", &dependency).len();
        assert_eq!(found(arrow("wavetank-sim-arm", Some("dev"))), 0);
        assert_eq!(found(arrow("wavetank-sim-arm", None)), 1);
        assert_eq!(found(arrow("wavetank-world", Some("dev"))), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_named() {
        let dependency = json!({ "name": "serde" });
        assert_eq!(
            problems("wavetank-new", "new", &dependency),
            ["`wavetank-new` has no place in the table of layers"]
        );
    }

    #[test]
    fn the_table_itself_runs_down() {
        for (index, (name, allowed)) in LAYERS.iter().enumerate() {
            for other in *allowed {
                let below = LAYERS[..index].iter().any(|(layer, _)| layer == other);
                assert!(below, "{name} -> {other}");
            }
        }
    }
}
