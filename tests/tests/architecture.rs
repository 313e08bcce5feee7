//! The workspace keeps its own rules: arrows between crates point one way, licences are compatible.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the workspace; a lower crate never names a higher one. `docs/architecture.md` is the map.
const LAYERS: &[(&str, &[&str])] = &[
    ("softclip-sys", &[]),
    ("softclip-io", &[]),
    ("softclip-torch", &["softclip-sys"]),
    ("softclip-tensor", &["softclip-torch"]),
    ("softclip-loss", &["softclip-tensor", "softclip-torch"]),
    ("softclip-encoders", &["softclip-tensor", "softclip-torch"]),
    ("softclip-data", &["softclip-tensor"]),
    ("softclip-detector", &["softclip-torch", "softclip-tensor"]),
    ("softclip-pretrained", &["softclip-torch", "softclip-tensor", "softclip-encoders", "softclip-data"]),
    (
        "softclip-extract",
        &["softclip-torch", "softclip-tensor", "softclip-encoders", "softclip-data", "softclip-detector", "softclip-pretrained"],
    ),
    ("softclip-distributed", &["softclip-torch"]),
    ("softclip-eval", &["softclip-torch", "softclip-tensor", "softclip-encoders", "softclip-data"]),
    ("softclip-score", &["softclip-torch", "softclip-tensor", "softclip-encoders", "softclip-data"]),
    (
        "softclip-train",
        &[
            "softclip-torch",
            "softclip-tensor",
            "softclip-loss",
            "softclip-encoders",
            "softclip-data",
            "softclip-distributed",
            "softclip-eval",
            "softclip-pretrained",
        ],
    ),
    ("softclip-report", &[]),
    (
        "softclip-cli",
        &[
            "softclip-sys",
            "softclip-torch",
            "softclip-tensor",
            "softclip-loss",
            "softclip-encoders",
            "softclip-data",
            "softclip-detector",
            "softclip-extract",
            "softclip-pretrained",
            "softclip-distributed",
            "softclip-eval",
            "softclip-score",
            "softclip-train",
            "softclip-report",
        ],
    ),
    ("softclip-tests", &[]),
];

/// The crate that every other may use.
const EVERYWHERE: &str = "softclip-io";

/// Each alternative (`A OR B`) of a dependency's licence expression that lies within these will do.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
    "Unicode-3.0",
    "IJG",
    "bzip2-1.0.6",
    // Mozilla's list of certificates, which webpki-roots carries: data, no code.
    "CDLA-Permissive-2.0",
];

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo prints JSON")
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().expect("packages")
}

#[test]
fn dependencies_between_crates_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let metadata = metadata();
    let members: Vec<_> = packages(&metadata).iter().filter(|p| p["source"].is_null()).collect();
    assert_eq!(members.len(), allowed.len(), "a crate is missing in this list");
    for package in members {
        let name = package["name"].as_str().expect("a name");
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} has no layer: add it here and in docs/architecture.md"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("a name");
            // Tests and build scripts may look around.
            if on.starts_with("softclip-") && on != EVERYWHERE && dependency["kind"].is_null() {
                assert!(allowed.contains(&on), "{name} may not depend on {on}");
            }
        }
    }
}

/// A small reading of licence expressions: OR over AND over names and brackets.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for word in expression.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match word {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if word == "OR" && depth == 0 {
            parts.push(String::new());
        } else {
            let last = parts.last_mut().expect("never empty");
            last.push_str(word);
            last.push(' ');
        }
    }
    if parts.len() > 1 {
        return parts.iter().any(|p| acceptable(p));
    }
    let one = parts[0].trim();
    if let Some(inner) = one.strip_prefix('(').and_then(|o| o.strip_suffix(')')).filter(|i| !i.contains('(')) {
        return acceptable(inner);
    }
    one.split(" AND ").all(|p| {
        let p = p.trim();
        if p.starts_with('(') { acceptable(p) } else { LICENCES.contains(&p) }
    })
}

#[test]
fn licence_expressions_are_read_rightly() {
    for good in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0", "(MIT OR Apache-2.0) AND BSD-3-Clause"]
    {
        assert!(acceptable(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "(GPL-2.0 OR LGPL-3.0) AND MIT"] {
        assert!(!acceptable(bad), "{bad}");
    }
}

#[test]
fn every_dependency_has_a_compatible_licence() {
    let metadata = metadata();
    let bad: Vec<_> = packages(&metadata)
        .iter()
        .filter(|p| !p["source"].is_null())
        .map(|p| (p["name"].as_str().unwrap_or("?"), p["license"].as_str().unwrap_or("")))
        .filter(|(_, licence)| !acceptable(licence))
        .collect();
    assert!(bad.is_empty(), "not on the list of licences: {bad:?}");
}
