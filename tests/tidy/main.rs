//! The repository checks its own shape: headers, sizes, names, imports, words, links.
//! Owns the list of rules; each rule is a pure function from the tree of files to findings, and
//! beside each stand tests with planted text that it must find.
//! # Invariants: a finding names the file, the line and what is wrong there.
//! # Not here: what rustfmt and clippy already check, and the dependencies (`supply.rs`).
#![allow(clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod imports;
mod papers;
mod rust;
mod shape;
mod tree;
mod words;

use tree::Tree;

/// Looks at every file and says what is wrong, one line each.
type Rule = fn(&Tree) -> Vec<String>;

/// Runs one rule on this repository.
fn hold(rule: Rule) {
    let findings = rule(&Tree::of_this_repository());
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn the_tree_holds_the_files_that_the_rules_are_about() {
    let tree = Tree::of_this_repository();
    for path in ["Cargo.toml", "src/lib.rs", "src/main.rs", "tests/tidy/main.rs"] {
        assert!(tree.has(path), "{path} is not in the tree");
    }
}

#[test]
fn every_rust_file_begins_with_a_header() {
    hold(shape::headers);
}

#[test]
fn no_rust_file_is_too_long() {
    hold(shape::file_lengths);
}

#[test]
fn no_function_is_too_long() {
    hold(shape::function_lengths);
}

#[test]
fn no_line_of_rust_is_too_wide() {
    hold(shape::line_widths);
}

#[test]
fn no_module_has_an_empty_name() {
    hold(shape::module_names);
}

#[test]
fn every_rust_file_is_part_of_the_build() {
    hold(shape::orphans);
}

#[test]
fn every_import_is_in_the_table() {
    hold(imports::imports);
}

#[test]
fn the_import_table_has_no_cycle() {
    assert_eq!(imports::disorder(imports::TABLE), Vec::<String>::new());
}

#[test]
fn pure_modules_neither_await_nor_touch_a_socket() {
    hold(words::pure_modules);
}

#[test]
fn only_the_command_line_prints() {
    hold(words::prints);
}

#[test]
fn only_the_registry_knows_the_concurrent_map() {
    hold(words::concurrent_map);
}

#[test]
fn no_client_chooses_the_keys_of_a_weak_hash() {
    hold(words::weak_hashes);
}

#[test]
fn nothing_is_left_unfinished_or_ignored() {
    hold(words::stubs);
}

#[test]
fn every_note_to_do_names_its_issue() {
    hold(words::notes);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    hold(words::machine_paths);
}

#[test]
fn no_file_names_a_host_of_a_registry() {
    hold(words::registry_hosts);
}

#[test]
fn no_line_of_markdown_ends_in_spaces() {
    hold(papers::trailing_spaces);
}

#[test]
fn every_relative_link_leads_to_a_file() {
    hold(papers::links);
}
