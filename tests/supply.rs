//! The dependencies: licences, banned crates, second versions, sources, and whether each is used.
//! Owns nothing of the policy: it is read from `deny.toml`, which cargo-deny reads as well. This
//! test says the same in a second, without a tool that takes minutes to build.
//! # Invariants: every crate that is built on this machine is looked at, the tests' own included.
//! # Not here: advisories and yanked versions, which need a network (`just deny`).
#![allow(clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Clone, Default, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for our own.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Default, Deserialize)]
struct Dependency {
    name: String,
    req: String,
    /// None for the product's own, else `dev` or `build`.
    kind: Option<String>,
}

/// The part of `deny.toml` that can be checked without a network.
#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Ban {
    name: String,
    reason: String,
}

/// A second version that is known and accepted.
#[derive(Deserialize)]
struct Skip {
    name: String,
    version: String,
}

impl Skip {
    fn matches(&self, package: &Package) -> bool {
        let rest = package.version.strip_prefix(&self.version);
        self.name == package.name
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[test]
fn every_licence_is_allowed() {
    assert_none(&bad_licences(&packages(), &policy()));
}

#[test]
fn no_banned_crate_is_built() {
    assert_none(&banned(&packages(), &policy()));
}

#[test]
fn every_second_version_is_known() {
    assert_none(&second_versions(&packages(), &policy()));
}

#[test]
fn every_crate_comes_from_the_registry() {
    assert_none(&strange_sources(&packages(), &policy()));
}

#[test]
fn every_dependency_is_used_and_has_a_version() {
    let packages = packages();
    let ours = packages.iter().find(|package| package.name == "fanfare").expect("we are a package");
    assert_none(&unused(ours, code_of));
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn policy() -> Policy {
    let file = config::File::from(root().join("deny.toml"));
    let policy = config::Config::builder().add_source(file).build().expect("deny.toml is TOML");
    policy.try_deserialize().expect("deny.toml has the sections of the policy")
}

/// Every crate of the tree on this platform; cargo has fetched them all to build this test.
fn packages() -> Vec<Package> {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("cargo says for which platform it is");
    let metadata =
        cargo(&["metadata", "--locked", "--format-version=1", "--filter-platform", host]);
    let metadata: Metadata = serde_json::from_str(&metadata).expect("cargo writes JSON");
    assert!(metadata.packages.len() > 50, "cargo told of {} crates", metadata.packages.len());
    metadata.packages
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output();
    let output = output.expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn bad_licences(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let licence = package.license.as_deref().unwrap_or_default();
        if !is_allowed(licence, &policy.licenses.allow) {
            findings.push(format!("{} {} is licensed `{licence}`", package.name, package.version));
        }
    }
    findings
}

/// Whether a licence expression can be satisfied with these licences.
fn is_allowed(expression: &str, allow: &[String]) -> bool {
    // Before there was a standard, `/` meant OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    any_of(&mut words, allow) && words.is_empty()
}

fn any_of(words: &mut &[&str], allow: &[String]) -> bool {
    let mut allowed = all_of(words, allow);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        allowed |= all_of(words, allow);
    }
    allowed
}

fn all_of(words: &mut &[&str], allow: &[String]) -> bool {
    let mut allowed = one(words, allow);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        allowed &= one(words, allow);
    }
    allowed
}

fn one(words: &mut &[&str], allow: &[String]) -> bool {
    let (licence, rest) = match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let allowed = any_of(words, allow);
            let [")", rest @ ..] = *words else {
                return false;
            };
            *words = rest;
            return allowed;
        }
        [licence, "WITH", exception, rest @ ..] => (format!("{licence} WITH {exception}"), rest),
        [licence, rest @ ..] => ((*licence).to_string(), rest),
        [] => return false,
    };
    *words = rest;
    allow.contains(&licence)
}

fn banned(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        for ban in policy.bans.deny.iter().filter(|ban| ban.name == package.name) {
            findings.push(format!("{} is banned: {}", ban.name, ban.reason));
        }
    }
    findings
}

fn second_versions(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let is_skipped = |package: &&Package| policy.bans.skip.iter().any(|skip| skip.matches(package));
    for package in packages.iter().filter(|package| !is_skipped(package)) {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let mut findings = Vec::new();
    for (name, versions) in versions {
        if versions.len() > 1 {
            findings.push(format!("{name} is there in versions {}", versions.join(", ")));
        }
    }
    for skip in &policy.bans.skip {
        if !packages.iter().any(|package| skip.matches(package)) {
            findings.push(format!("{} {} is skipped and not there", skip.name, skip.version));
        }
    }
    findings
}

fn strange_sources(packages: &[Package], policy: &Policy) -> Vec<String> {
    let is_known = |source: &str| {
        let registry = source.strip_prefix("registry+").unwrap_or_default();
        policy.sources.allow_registry.iter().any(|allowed| allowed == registry)
    };
    let mut findings = Vec::new();
    for package in packages {
        match &package.source {
            Some(source) if !is_known(source) => {
                findings.push(format!("{} comes from {source}", package.name));
            }
            None if package.name != "fanfare" => {
                findings.push(format!("{} comes from a path", package.name));
            }
            _ => {}
        }
    }
    findings
}

/// Dependencies of ours that no code names, or that any version would satisfy.
fn unused(ours: &Package, code: impl Fn(Option<&str>) -> String) -> Vec<String> {
    let mut findings = Vec::new();
    for dependency in &ours.dependencies {
        let Dependency { name, req, kind } = dependency;
        if req == "*" {
            findings.push(format!("{name} has no version"));
        }
        if !names(&code(kind.as_deref()), &name.replace('-', "_")) {
            findings.push(format!("no code uses {name}"));
        }
    }
    findings
}

/// Whether the code has a path that begins with this crate.
fn names(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code.get(..at).unwrap_or_default();
        let before = before
            .strip_suffix("::")
            .filter(|rest| rest.ends_with(char::is_whitespace))
            .unwrap_or(before);
        !before.ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c))
    })
}

/// All code that a dependency of this kind may be used by.
fn code_of(kind: Option<&str>) -> String {
    let places: &[&str] = match kind {
        None => &["src"],
        Some("build") => &["build.rs"],
        Some(_) => &["src", "tests", "benches", "examples"],
    };
    let mut code = String::new();
    let mut paths: Vec<PathBuf> = places.iter().map(|place| root().join(place)).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder can be read");
            paths.extend(entries.map(|entry| entry.expect("a folder can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") && path.is_file() {
            code += &std::fs::read_to_string(&path).expect("a source can be read");
        }
    }
    code
}

#[cfg(test)]
mod planted {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        let index = "registry+https://github.com/rust-lang/crates.io-index";
        Package {
            name: name.into(),
            version: version.into(),
            license: Some("MIT".into()),
            source: Some(index.into()),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn a_licence_counts_by_what_it_lets_us_choose() {
        let allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        let allow = allow.map(String::from);
        let cases = [
            ("MIT", true),
            ("MPL-2.0", false),
            ("", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(MIT OR GPL-3.0) AND MPL-2.0", false),
            ("MIT AND (GPL-3.0 OR MPL-2.0)", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH Other-exception", false),
            ("MIT OR GPL-3.0 AND MPL-2.0", true),
            ("(MIT", false),
            ("MIT MIT", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(is_allowed(expression, &allow), expected, "{expression}");
        }
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found() {
        let mut strict = package("yawc", "0.3.0");
        strict.license = Some("MPL-2.0".into());
        let mut silent = package("silent", "1.0.0");
        silent.license = None;
        let findings = bad_licences(&[package("good", "1.0.0"), strict, silent], &policy());
        assert_eq!(findings, ["yawc 0.3.0 is licensed `MPL-2.0`", "silent 1.0.0 is licensed ``"]);
    }

    #[test]
    fn a_banned_crate_is_found() {
        let findings = banned(&[package("rsa", "0.9.0"), package("rsax", "1.0.0")], &policy());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.starts_with("rsa is banned: ")));
    }

    #[test]
    fn a_second_version_and_a_stale_exception_are_found() {
        let mut policy = policy();
        let skip = |name: &str, version: &str| Skip { name: name.into(), version: version.into() };
        policy.bans.skip = vec![skip("old", "0.2"), skip("gone", "1")];
        let packages = [
            package("old", "0.2.9"),
            package("old", "0.3.0"),
            package("twice", "1.0.0"),
            package("twice", "2.0.0"),
            package("gone", "10.0.0"),
        ];
        let expected =
            ["twice is there in versions 1.0.0, 2.0.0", "gone 1 is skipped and not there"];
        assert_eq!(second_versions(&packages, &policy), expected);
    }

    #[test]
    fn a_crate_from_elsewhere_is_found() {
        let mut git = package("git", "1.0.0");
        git.source = Some("git+https://example.org/git".into());
        let mut path = package("path", "1.0.0");
        path.source = None;
        let findings = strange_sources(&[package("good", "1.0.0"), git, path], &policy());
        assert_eq!(
            findings,
            ["git comes from git+https://example.org/git", "path comes from a path"]
        );
    }

    #[test]
    fn a_dependency_that_no_code_names_is_found() {
        let dependency = |name: &str, req: &str, kind: Option<&str>| Dependency {
            name: name.into(),
            req: req.into(),
            kind: kind.map(String::from),
        };
        let mut ours = package("fanfare", "0.1.0");
        ours.dependencies = vec![
            dependency("two-words", "1", None),
            dependency("config", "1", None),
            dependency("scratch", "*", Some("dev")),
        ];
        let code = |kind: Option<&str>| match kind {
            None => "use two_words::Body; use crate::config::Config; reconfig::x()".to_string(),
            Some(_) => "let folder = ::scratch::folder();".to_string(),
        };
        assert_eq!(unused(&ours, code), ["no code uses config", "scratch has no version"]);
    }
}
