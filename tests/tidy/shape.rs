//! Rules about the shape of Rust files: header, size, names, and a place in the build.
//! # Not here: what a line says (`words`), who imports whom (`imports`).

use crate::rust::{Source, closing, tokens};
use crate::tree::{File, Tree};

/// Lines of one Rust file, its tests included.
const FILE_LINES_MAX: usize = 600;
/// Files that must stay smaller: they hold no logic.
const SMALL_FILES: [(&str, usize); 2] = [("src/lib.rs", 80), ("src/main.rs", 40)];
/// Lines of code in one function's body. Clippy's `too_many_lines` is exact; this is the fence
/// that an `allow` does not open.
const FUNCTION_LINES_MAX: usize = 70;
/// Columns of one line, without what is inside its literals. Rustfmt holds most code to less; this
/// catches comments and what it does not dare to break.
const LINE_COLUMNS_MAX: usize = 120;
/// Columns of one line with its literals: a row of a table may be wider, but not without end.
const ROW_COLUMNS_MAX: usize = 160;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"];

/// Every Rust file says first what it is.
pub(crate) fn headers(tree: &Tree) -> Vec<String> {
    let bare = |file: &&File| !file.text.starts_with("//! ");
    let finding = |file: &File| file.finding(1, "begins without a `//!` header");
    tree.written_in("rs").filter(bare).map(finding).collect()
}

/// Files stay short enough to be read in one go.
pub(crate) fn file_lengths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("rs") {
        let small = SMALL_FILES.iter().find(|(path, _)| *path == file.path);
        let limit = small.map_or(FILE_LINES_MAX, |(_, limit)| *limit);
        let lines = file.text.lines().count();
        if lines > limit {
            let what = format!("the file has {lines} lines, the limit is {limit}");
            findings.push(file.finding(lines, &what));
        }
    }
    findings
}

/// Functions fit a screen.
pub(crate) fn function_lengths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("rs") {
        for function in functions(&file.text) {
            let Function { name, line, lines } = function;
            if lines > FUNCTION_LINES_MAX {
                let what = format!("`{name}` has {lines} lines, the limit is {FUNCTION_LINES_MAX}");
                findings.push(file.finding(line, &what));
            }
        }
    }
    findings
}

/// Lines fit a window.
pub(crate) fn line_widths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("rs") {
        let outside = Source::of(&file.text).shortened;
        for (index, (line, outside)) in file.text.lines().zip(outside.lines()).enumerate() {
            let widths = [(line, ROW_COLUMNS_MAX), (outside, LINE_COLUMNS_MAX)];
            let widths = widths.map(|(line, limit)| (line.chars().count(), limit));
            if let Some((columns, limit)) = widths.iter().find(|(columns, limit)| columns > limit) {
                let what = format!("the line has {columns} columns, the limit is {limit}");
                findings.push(file.finding(index + 1, &what));
            }
        }
    }
    findings
}

/// Modules are nouns that say what is inside.
pub(crate) fn module_names(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("rs") {
        let mut names: Vec<(usize, String)> = declared(&file.text, Body::Inline);
        names.extend(file.path.trim_end_matches(".rs").split('/').map(|part| (1, part.into())));
        for (line, name) in names {
            if let Some(word) = name.split(['_', '-']).find(|word| EMPTY_NAMES.contains(word)) {
                let what =
                    format!("the module name `{name}` says nothing: find a noun for `{word}`");
                findings.push(file.finding(line, &what));
            }
        }
    }
    findings
}

/// Every Rust file is the root of a build target or declared by the module above it.
pub(crate) fn orphans(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("rs").filter(|file| !is_root(&file.path)) {
        let path = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let ends = [".rs", "/mod.rs", "/lib.rs", "/main.rs"];
        let parents = ends.iter().filter_map(|end| tree.file(&format!("{folder}{end}")));
        // What benchmarks share is declared by each of them.
        let beside = |file: &&File| folder == "benches" && file.path.starts_with("benches/");
        let mut parents = parents.chain(tree.written_in("rs").filter(beside));
        let declares = |parent: &File| {
            declared(&parent.text, Body::File).iter().any(|(_, declared)| declared == name)
        };
        if !parents.any(declares) {
            findings.push(file.finding(1, &format!("no `mod {name};` declares this file")));
        }
    }
    findings
}

struct Function {
    name: String,
    line: usize,
    /// Lines with code between the braces.
    lines: usize,
}

/// All functions that have a body, nested ones too.
fn functions(text: &str) -> Vec<Function> {
    let tokens = tokens(text);
    let mut functions = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate() {
        let [keyword, name] = pair else { continue };
        if keyword.text != "fn" || !name.is_word() {
            continue;
        }
        let mut depth = 0_usize;
        let body = tokens.iter().enumerate().skip(index).find(|(_, token)| {
            match token.text.as_str() {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && matches!(token.text.as_str(), "{" | ";")
        });
        let Some((open, _)) = body.filter(|(_, token)| token.text == "{") else {
            continue;
        };
        let inside = tokens.get(open + 1..closing(&tokens, open)).unwrap_or_default();
        let mut lines: Vec<usize> = inside.iter().map(|token| token.line).collect();
        lines.dedup();
        functions.push(Function {
            name: name.text.clone(),
            line: keyword.line,
            lines: lines.len(),
        });
    }
    functions
}

/// Where a declared module's body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    File,
    Inline,
}

/// The modules that a file declares, with the line.
fn declared(text: &str, body: Body) -> Vec<(usize, String)> {
    let end = if body == Body::File { ";" } else { "{" };
    let mut names = Vec::new();
    for triple in tokens(text).windows(3) {
        let [keyword, name, after] = triple else {
            continue;
        };
        if keyword.text == "mod" && after.text == end {
            names.push((name.line, name.text.clone()));
        }
    }
    names
}

/// Whether cargo builds this file by itself.
fn is_root(path: &str) -> bool {
    let targets = ["tests", "benches", "examples", "src/bin", "fuzz/fuzz_targets"];
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
    matches!(path, "build.rs" | "src/lib.rs" | "src/main.rs" | "fuzz/src/lib.rs")
        || targets.contains(&folder)
        || (name == "main.rs" && targets.contains(&parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Tree) -> Vec<String>, files: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(rule(&Tree::planted(files)), expected);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        let files = [
            ("src/good.rs", "//! Good.\n"),
            ("tests/late.rs", "use std::io;\n//! Late.\n"),
            ("build.rs", "// Plain.\n"),
            ("src/empty.rs", ""),
        ];
        check(
            headers,
            &files,
            &[
                "tests/late.rs:1: begins without a `//!` header",
                "build.rs:1: begins without a `//!` header",
                "src/empty.rs:1: begins without a `//!` header",
            ],
        );
    }

    #[test]
    fn a_file_one_line_over_its_limit_is_found() {
        let (full, over) = ("x\n".repeat(600), "x\n".repeat(601));
        let (library, binary) = ("x\n".repeat(81), "x\n".repeat(41));
        let files = [
            ("src/full.rs", full.as_str()),
            ("tests/it/over.rs", &over),
            ("src/lib.rs", &library),
            ("src/main.rs", &binary),
        ];
        check(
            file_lengths,
            &files,
            &[
                "tests/it/over.rs:601: the file has 601 lines, the limit is 600",
                "src/lib.rs:81: the file has 81 lines, the limit is 80",
                "src/main.rs:41: the file has 41 lines, the limit is 40",
            ],
        );
    }

    #[test]
    fn a_function_one_line_over_the_limit_is_found() {
        let body = |lines| format!("{}// a comment\n\n", "    call(\"}\");\n".repeat(lines));
        let full = format!("fn full(a: [u8; 4]) -> u8 {{\n{}}}\n", body(70));
        let over = format!("trait T {{ fn none(&self); }}\nfn over() {{\n{}}}\n", body(71));
        let files = [("src/full.rs", full.as_str()), ("src/over.rs", &over)];
        check(function_lengths, &files, &["src/over.rs:2: `over` has 71 lines, the limit is 70"]);
    }

    #[test]
    fn a_line_one_column_over_the_limit_is_found() {
        let comment = |columns: usize| format!("\n{}\n", "é".repeat(columns));
        let row = |columns: usize| format!("    (\"{}\"),\n", "x".repeat(columns - 9));
        let (full, over) = (comment(120) + &row(160), comment(121) + &row(161));
        let files = [("src/full.rs", full.as_str()), ("src/over.rs", &over)];
        check(
            line_widths,
            &files,
            &[
                "src/over.rs:2: the line has 121 columns, the limit is 120",
                "src/over.rs:3: the line has 161 columns, the limit is 160",
            ],
        );
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        let files = [
            ("src/shard/outbound.rs", "mod tests {}\nmod commonplace {}"),
            ("src/topic_manager.rs", ""),
            ("tests/common/mod.rs", ""),
            ("src/ws/mod.rs", "\nmod util { }"),
        ];
        check(
            module_names,
            &files,
            &[
                "src/topic_manager.rs:1: the module name `topic_manager` says nothing: find a noun for `manager`",
                "tests/common/mod.rs:1: the module name `common` says nothing: find a noun for `common`",
                "src/ws/mod.rs:2: the module name `util` says nothing: find a noun for `util`",
            ],
        );
    }

    #[test]
    fn a_file_that_nothing_declares_is_found() {
        let files = [
            ("src/lib.rs", "pub mod topics;\n// mod lost;\nmod left { }"),
            ("src/topics/mod.rs", "mod name;"),
            ("src/topics/name.rs", ""),
            ("src/topics/other.rs", ""),
            ("src/lost.rs", ""),
            ("src/left.rs", ""),
            ("tests/it/main.rs", "mod server;"),
            ("tests/it/server.rs", ""),
            ("tests/it/stray.rs", ""),
            ("benches/codec.rs", ""),
            ("fuzz/fuzz_targets/decode.rs", ""),
            ("build.rs", ""),
        ];
        check(
            orphans,
            &files,
            &[
                "src/topics/other.rs:1: no `mod other;` declares this file",
                "src/lost.rs:1: no `mod lost;` declares this file",
                "src/left.rs:1: no `mod left;` declares this file",
                "tests/it/stray.rs:1: no `mod stray;` declares this file",
            ],
        );
    }
}
