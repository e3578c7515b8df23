//! The import table: which module of `src/` may use which.
//! Owns the table as data, and the reader of paths that holds the sources to it.
//! # Invariants: a row names only rows above it, so the modules cannot depend on each other in a
//! circle; a module without a row fails.
//! # Not here: what crates a module uses (`words`).

use crate::rust::{Token, tokens};
use crate::tree::{File, Tree};

/// A module, and the modules it may use, separated by spaces; `*` is every row above.
pub(crate) type Row = (&'static str, &'static str);

/// The table. To let a module use another, add the name here and say why in the commit.
/// `shard` uses `dialect`, which is pure: it encodes the frames that it shares and the gaps it tells.
#[rustfmt::skip]
pub(crate) const TABLE: &[Row] = &[
    ("planted", ""),
    ("reason",  ""),
    ("clock",   ""),
    ("tls",     ""),
    ("control", ""),
    ("memory", ""),
    ("topics",  "planted reason clock"),
    ("auth",    "reason clock topics"),
    ("metrics", "reason clock topics auth"),
    ("limits",  "reason clock topics"),
    ("dialect", "reason clock topics"),
    ("shard",   "planted reason clock tls topics auth metrics limits dialect"),
    ("engine",  "reason clock topics metrics"),
    ("restart", "clock topics"),
    ("session", "*"),
    ("demo",    "reason clock topics"),
    ("ws",      "reason clock topics auth metrics limits dialect shard engine session"),
    ("listen",  "reason clock tls metrics limits shard"),
    ("http",    "reason clock tls topics auth metrics limits dialect shard engine session ws listen control memory"),
    ("ingress", "reason clock topics metrics limits dialect shard engine session listen"),
    ("systemd", ""),
    ("client",  "reason clock tls topics dialect"),
    ("config",  "*"),
    ("keys",    "auth metrics config"),
    ("server",  "*"),
    ("cli",     "*"),
    ("main",    "cli"),
];

/// Every use of one of our modules by another is in the table.
pub(crate) fn imports(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.sources() {
        let Some(module) = module(&file.path) else {
            continue;
        };
        let Some(row) = TABLE.iter().position(|(name, _)| *name == module) else {
            findings.push(file.finding(1, &format!("`{module}` has no row in the import table")));
            continue;
        };
        let allowed = allowed(TABLE, row);
        for (line, used) in used(file) {
            if used != module && !allowed.contains(&used.as_str()) {
                let what = format!("`{module}` may not use `{used}`");
                findings.push(file.finding(line, &what));
            }
        }
    }
    findings
}

/// What keeps a table from being a proof that there is no cycle.
pub(crate) fn disorder(table: &[Row]) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, (name, row)) in table.iter().enumerate() {
        let above: Vec<&str> = table.iter().take(index).map(|(name, _)| *name).collect();
        if above.contains(name) {
            findings.push(format!("`{name}` has two rows"));
        }
        for used in row.split_whitespace().filter(|used| *used != "*" && !above.contains(used)) {
            findings.push(format!("the row of `{name}` names `{used}`, which is not above it"));
        }
    }
    findings
}

/// The modules that this row lets its module use.
fn allowed(table: &[Row], row: usize) -> Vec<&'static str> {
    let words = table.get(row).map_or("", |(_, words)| words);
    if words == "*" {
        return table.iter().take(row).map(|(name, _)| *name).collect();
    }
    words.split_whitespace().collect()
}

/// The top-level module that a source belongs to; the crate's root belongs to none.
fn module(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?.trim_end_matches(".rs");
    path.split('/').next().filter(|name| *name != "lib")
}

/// How many steps of `super` lead from a file to the crate's root.
fn depth(path: &str) -> usize {
    path.trim_end_matches(".rs").trim_end_matches("/mod").matches('/').count()
}

/// The top-level modules that a source names by a path, with the line.
fn used(file: &File) -> Vec<(usize, String)> {
    let tokens = tokens(&file.text);
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    // For each open brace, whether a module's body began there.
    let mut braces: Vec<bool> = Vec::new();
    for index in 0..tokens.len() {
        match text(index) {
            "{" => braces.push(index > 1 && text(index - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" if text(index + 1) == "::" => found.extend(firsts(&tokens, index + 2)),
            // The binary sees the library from outside.
            "fanfare" if text(index + 1) == "::" && file.path == "src/main.rs" => {
                found.extend(firsts(&tokens, index + 2));
            }
            "super" if index == 0 || text(index - 1) != "::" => {
                let rest = tokens.get(index..).unwrap_or_default();
                let is_step =
                    |pair: &&[Token]| matches!(pair, [a, b] if a.text == "super" && b.text == "::");
                let steps = rest.chunks(2).take_while(is_step).count();
                let inline = braces.iter().filter(|is_module| **is_module).count();
                if steps >= depth(&file.path) + inline {
                    found.extend(firsts(&tokens, index + 2 * steps));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first names of the path, or of each path in the braces, that begins at `at`.
fn firsts(tokens: &[Token], at: usize) -> Vec<(usize, String)> {
    let mut firsts = Vec::new();
    let mut depth = 0_usize;
    let mut is_first = true;
    for token in tokens.iter().skip(at) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "," if depth == 1 => is_first = true,
            _ if is_first => {
                firsts.push((token.line, token.text.clone()));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    firsts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_eq!(imports(&Tree::planted(&[(path, text)])), expected, "in {text}");
    }

    #[test]
    fn a_use_that_is_not_in_the_table_is_found() {
        let expected = ["src/topics/name.rs:2: `topics` may not use `shard`"];
        for text in [
            "use crate::reason::Reason;\nuse crate::shard::Shards;",
            "use crate::{clock,\n shard};",
            "use crate::{reason::{Reason, Refusal}, topics::{self},\n shard::{a, b::{c}}, clock};",
            "fn f() {\n crate::shard::deliver(); crate::reason::f() }",
            "macro_rules! m { () => {\n $crate::shard::f() } }",
            "#[cfg(test)] mod tests { use super::*;\n use crate::shard::x; }",
            "/* crate::http */ // crate::ws\nuse super::super::shard;",
            "\nuse super::super::{shard, reason};",
            "mod tests {\n use super::super::super::shard; use super::super::other; }",
            "fn f() { }\nfn g() -> crate::shard::T { crate::topics::T }",
        ] {
            check("src/topics/name.rs", text, &expected);
        }
    }

    #[test]
    fn a_glob_of_the_root_is_found() {
        check(
            "src/topics/mod.rs",
            "use crate::*;",
            &["src/topics/mod.rs:1: `topics` may not use `*`"],
        );
    }

    #[test]
    fn uses_in_the_table_pass() {
        check("src/topics/name.rs", "use crate::reason::Reason; use super::message::X;", &[]);
        check("src/topics/mod.rs", "use super::reason; mod tests { use super::name; }", &[]);
        check(
            "src/session/mod.rs",
            "use crate::{dialect, engine, limits, reason, shard, topics};",
            &[],
        );
        check(
            "src/topics/name.rs",
            "const A: &str = \"crate::shard\"; pub(crate) fn shard() {}",
            &[],
        );
        check("src/lib.rs", "pub mod server; use crate::cli;", &[]);
        check("src/main.rs", "fn main() { fanfare::cli::run() }", &[]);
    }

    #[test]
    fn the_binary_uses_only_the_command_line() {
        check(
            "src/main.rs",
            "use fanfare::server;",
            &["src/main.rs:1: `main` may not use `server`"],
        );
    }

    #[test]
    fn nobody_may_use_the_configuration_but_the_server_and_the_command_line() {
        for module in ["ws", "session", "demo", "topics", "listen"] {
            let path = format!("src/{module}.rs");
            let expected = format!("{path}:1: `{module}` may not use `config`");
            check(&path, "use crate::config::Config;", &[&expected]);
        }
        check("src/server.rs", "use crate::config::Config;", &[]);
        check("src/cli/serve.rs", "use crate::config::Config;", &[]);
    }

    #[test]
    fn a_module_without_a_row_is_found() {
        let expected = ["src/gossip/mod.rs:1: `gossip` has no row in the import table"];
        check("src/gossip/mod.rs", "", &expected);
    }

    #[test]
    fn a_row_that_names_one_below_it_is_found() {
        let table = [("a", "b"), ("b", "a c"), ("b", "*"), ("d", "d")];
        let expected = [
            "the row of `a` names `b`, which is not above it",
            "the row of `b` names `c`, which is not above it",
            "`b` has two rows",
            "the row of `d` names `d`, which is not above it",
        ];
        assert_eq!(disorder(&table), expected);
    }
}
