//! Rules about words that may stand only in some places, or nowhere.
//! # Not here: imports of our own modules (`imports`).

use crate::rust::{Source, Token, tokens};
use crate::tree::{File, Tree};

/// Modules that are functions of their input: no waiting, no runtime, no sockets.
const PURE: [&str; 7] = ["auth", "clock", "demo", "dialect", "limits", "reason", "topics"];
/// Words of code that a pure module has no use for.
const IMPURE: [&str; 8] =
    ["async", "await", "fastwebsockets", "hyper", "hyper_util", "socket2", "tokio", "tokio_util"];
/// The file that hashes numbers.
const NUMBERS: &str = "src/shard/subscribers.rs";
/// What a hash without a key is called.
const WEAK: [&str; 8] = [
    "AHashMap",
    "BuildHasherDefault",
    "FnvHashMap",
    "FxHashMap",
    "ahash",
    "foldhash",
    "hashbrown",
    "rustc_hash",
];
/// Macros that write to the terminal.
const PRINTS: [&str; 4] = ["eprint", "eprintln", "print", "println"];
/// Macros that stand for code that was not written.
const STUBS: [&str; 3] = ["dbg", "todo", "unimplemented"];
/// Beginnings of paths that exist on somebody's machine only. Written in two parts, so that this
/// file does not find itself.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
/// Where packages come from is the business of the machine that fetches them.
const REGISTRY_HOSTS: [&str; 6] = [
    concat!("deb.", "debian.org"),
    concat!("files.", "pythonhosted.org"),
    concat!("index.", "crates.io"),
    concat!("py", "pi.org"),
    concat!("registry.", "npmjs.org"),
    concat!("static.", "crates.io"),
];

/// The pure modules stay pure.
pub(crate) fn pure_modules(tree: &Tree) -> Vec<String> {
    let is_pure = |file: &File| {
        let path = file.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').next().is_some_and(|module| PURE.contains(&module))
    };
    let mut findings = Vec::new();
    for file in tree.sources().filter(|file| is_pure(file)) {
        for token in tokens(&file.text).iter().filter(|token| IMPURE.contains(&&*token.text)) {
            let what = format!("`{}` in a module that is pure", token.text);
            findings.push(file.finding(token.line, &what));
        }
    }
    findings
}

/// Only the command line talks to the terminal; all others log, count or answer.
pub(crate) fn prints(tree: &Tree) -> Vec<String> {
    let is_terminal = |file: &File| file.path == "src/cli.rs" || file.path.starts_with("src/cli/");
    let mut findings = Vec::new();
    for file in tree.sources().filter(|file| !is_terminal(file)) {
        for (line, name) in macros(&tokens(&file.text), &PRINTS) {
            findings.push(file.finding(line, &format!("`{name}!` outside `cli`")));
        }
    }
    findings
}

/// A guard of the concurrent map must never leave the registry.
pub(crate) fn concurrent_map(tree: &Tree) -> Vec<String> {
    let is_registry = |file: &File| file.path.starts_with("src/topics/registry");
    let mut findings = Vec::new();
    for file in tree.sources().filter(|file| !is_registry(file)) {
        for token in tokens(&file.text) {
            if matches!(token.text.as_str(), "DashMap" | "DashSet" | "dashmap") {
                let what = format!("`{}` outside `topics/registry`", token.text);
                findings.push(file.finding(token.line, &what));
            }
        }
    }
    findings
}

/// Peers choose names and addresses, and could choose them to collide: only numbers that the broker
/// gives out itself may have a hash without a key.
pub(crate) fn weak_hashes(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.sources().filter(|file| file.path != NUMBERS) {
        for token in tokens(&file.text).iter().filter(|token| WEAK.contains(&&*token.text)) {
            let what = format!("`{}` outside `{NUMBERS}`", token.text);
            findings.push(file.finding(token.line, &what));
        }
    }
    findings
}

/// Tests that only gates of their own run, because they take long.
const LONG: &str = "tests/long/";

/// No stub, no forgotten print, no test that is switched off.
pub(crate) fn stubs(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("rs") {
        let tokens = tokens(&file.text);
        for (line, name) in macros(&tokens, &STUBS) {
            findings.push(file.finding(line, &format!("`{name}!` is left in the code")));
        }
        for triple in tokens.windows(3) {
            let [hash, open, name] = triple else { continue };
            let is_ignored = (&*hash.text, &*open.text, &*name.text) == ("#", "[", "ignore");
            if is_ignored && !file.path.starts_with(LONG) {
                findings.push(file.finding(name.line, "a test is ignored: fix it or delete it"));
            }
        }
    }
    findings
}

/// What is still to be done is an issue; a note in the code says which.
pub(crate) fn notes(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    let is_prose = |file: &File| file.is("md") || file.is_vendored();
    for file in tree.files().filter(|file| !is_prose(file)) {
        let text = if file.is("rs") { Source::of(&file.text).comments } else { file.text.clone() };
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let names_issue =
                line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if words.any(|word| matches!(word, "TODO" | "FIXME" | "XXX")) && !names_issue {
                findings.push(file.finding(index + 1, "a note to do without its `#issue`"));
            }
        }
    }
    findings
}

/// Nothing depends on where one machine keeps its files.
pub(crate) fn machine_paths(tree: &Tree) -> Vec<String> {
    lines_with(tree, |line| {
        let word = MACHINE_PATHS.iter().find(|path| {
            line.match_indices(**path).any(|(at, _)| {
                let before = line.get(..at).and_then(|before| before.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || "._-~}$*)]".contains(c))
            })
        })?;
        Some(format!("`{word}…` is a path of one machine"))
    })
}

/// Nothing depends on which mirror a machine fetches packages from. npm leaves it out of its lock
/// where `.npmrc` says `omit-lockfile-registry-resolved=true`.
pub(crate) fn registry_hosts(tree: &Tree) -> Vec<String> {
    lines_with(tree, |line| {
        let host = REGISTRY_HOSTS.iter().find(|host| line.contains(**host))?;
        Some(format!("`{host}` is the host of a registry"))
    })
}

/// Runs a check over each line of every text file.
fn lines_with(tree: &Tree, check: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.files() {
        let lines = file.text.lines().enumerate();
        findings
            .extend(lines.filter_map(|(index, line)| Some(file.finding(index + 1, &check(line)?))));
    }
    findings
}

/// The uses of these macros, with the line.
fn macros(tokens: &[Token], names: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        let [name, bang] = pair else { continue };
        if bang.text == "!" && names.contains(&&*name.text) {
            found.push((name.line, name.text.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Tree) -> Vec<String>, files: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(rule(&Tree::planted(files)), expected);
    }

    #[test]
    fn a_weak_hash_is_found_outside_its_file() {
        let map = "use std::hash::BuildHasherDefault;\n";
        let files = [("src/shard/subscribers.rs", map), ("src/a.rs", map), ("tests/b.rs", map)];
        let expected = ["src/a.rs:1: `BuildHasherDefault` outside `src/shard/subscribers.rs`"];
        assert_eq!(weak_hashes(&Tree::planted(&files)), expected);
    }

    #[test]
    fn a_pure_module_that_waits_is_found() {
        let files = [
            ("src/topics/name.rs", "// tokio\nasync fn f() { g().await }"),
            ("src/limits.rs", "use tokio::time;\nuse hyper::Request;"),
            ("src/dialect/json.rs", "const A: &str = \"async\"; fn asynchronous() {}"),
            ("src/ws/connection.rs", "async fn f() {}"),
        ];
        check(
            pure_modules,
            &files,
            &[
                "src/topics/name.rs:2: `async` in a module that is pure",
                "src/topics/name.rs:2: `await` in a module that is pure",
                "src/limits.rs:1: `tokio` in a module that is pure",
                "src/limits.rs:2: `hyper` in a module that is pure",
            ],
        );
    }

    #[test]
    fn a_print_outside_the_command_line_is_found() {
        let files = [
            ("src/cli/serve.rs", "println!()"),
            ("src/server.rs", "fn f() {\nprintln!(\"x\"); }"),
            ("src/main.rs", "eprint!()"),
            ("build.rs", "println!()"),
            ("src/metrics.rs", "/// Like `println!`.\nfn print() {}"),
        ];
        check(
            prints,
            &files,
            &[
                "src/server.rs:2: `println!` outside `cli`",
                "src/main.rs:1: `eprint!` outside `cli`",
            ],
        );
    }

    #[test]
    fn the_concurrent_map_outside_the_registry_is_found() {
        let files = [
            ("src/topics/registry.rs", "use dashmap::DashMap;"),
            ("src/topics/registry/sweep.rs", "use dashmap::DashMap;"),
            ("src/shard/mod.rs", "// DashMap\nuse dashmap::DashMap;"),
        ];
        check(
            concurrent_map,
            &files,
            &[
                "src/shard/mod.rs:2: `dashmap` outside `topics/registry`",
                "src/shard/mod.rs:2: `DashMap` outside `topics/registry`",
            ],
        );
    }

    #[test]
    fn a_stub_or_an_ignored_test_is_found() {
        let files = [
            (
                "src/a.rs",
                "fn f() { todo!() }\nfn g() { dbg!(1) }\nfn h() { unimplemented!(\"x\") }",
            ),
            ("tests/it/main.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
            ("tests/long/main.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
            ("src/b.rs", "// todo!() #[ignore]\nlet todo = !dbg; fn ignore() {}"),
        ];
        check(
            stubs,
            &files,
            &[
                "src/a.rs:1: `todo!` is left in the code",
                "src/a.rs:2: `dbg!` is left in the code",
                "src/a.rs:3: `unimplemented!` is left in the code",
                "tests/it/main.rs:2: a test is ignored: fix it or delete it",
            ],
        );
    }

    #[test]
    fn a_note_without_an_issue_is_found() {
        let files = [
            ("src/a.rs", "// TODO: later\n// TODO(#12): later\nlet s = \"FIXME\"; // FIXME # 3"),
            ("test.sh", "# XXX\n# TODO #4\n# METHODOLOGY"),
            ("README.md", "TODO"),
            ("src/http/assets/vendor/chart.js", "// TODO"),
        ];
        check(
            notes,
            &files,
            &[
                "src/a.rs:1: a note to do without its `#issue`",
                "src/a.rs:3: a note to do without its `#issue`",
                "test.sh:1: a note to do without its `#issue`",
            ],
        );
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let [home, root, users, work] = MACHINE_PATHS;
        let bad = format!("cd {home}me\nsee \"{root}.cargo\"\n[x]({users}me)\nfile://{work}main");
        let good = format!("docs{home}page\n$HOME{work}x\n${{HOME}}{work}x\n.{root}x\n~{work}");
        check(
            machine_paths,
            &[("a.sh", &bad), ("b.md", &good)],
            &[
                &format!("a.sh:1: `{home}…` is a path of one machine"),
                &format!("a.sh:2: `{root}…` is a path of one machine"),
                &format!("a.sh:3: `{users}…` is a path of one machine"),
                &format!("a.sh:4: `{work}…` is a path of one machine"),
            ],
        );
    }

    #[test]
    fn a_host_of_a_registry_is_found() {
        for host in REGISTRY_HOSTS {
            let lock = format!("{{\n\"resolved\": \"https://{host}/ws\" }}");
            let findings = registry_hosts(&Tree::planted(&[("package-lock.json", &lock)]));
            assert_eq!(findings.len(), 1, "{host}");
            assert!(findings.iter().all(|finding| finding.starts_with("package-lock.json:2:")));
        }
        check(registry_hosts, &[("README.md", "on crates.io, npm and PyPI")], &[]);
    }
}
