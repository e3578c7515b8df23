//! Rules about Markdown: no invisible line ends, no link that leads nowhere.
//! # Not here: links to other sites, which only a network can check.

use crate::tree::{File, Tree};

/// Lines do not end in spaces; a line break is a new sentence's line.
pub(crate) fn trailing_spaces(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("md") {
        for (index, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                findings.push(file.finding(index + 1, "the line ends in spaces"));
            }
        }
    }
    findings
}

/// A link inside the repository leads to a file or a folder with files.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.written_in("md") {
        for (line, target) in targets(&file.text) {
            if !resolve(file, &target).is_none_or(|path| tree.has(&path)) {
                findings.push(file.finding(line, &format!("`{target}` leads to no file")));
            }
        }
    }
    findings
}

/// The path that a link leads to; nothing for other sites and for this very page.
fn resolve(file: &File, target: &str) -> Option<String> {
    let is_outside =
        ["http:", "https:", "mailto:", "#"].iter().any(|start| target.starts_with(start));
    if is_outside {
        return None;
    }
    let target = target.split(['#', '?']).next().unwrap_or_default();
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let from_root = target.starts_with('/');
    let mut parts: Vec<&str> = if from_root { Vec::new() } else { folder.split('/').collect() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            // One step above the root leads nowhere; the odd name makes sure of it.
            ".." if parts.iter().all(|part| part.is_empty()) => parts.push("(above the root)"),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    Some(parts.join("/"))
}

/// The targets of inline links, images and link definitions outside code, with the line.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        let prose = without_code(line);
        let inline = prose.split("](").skip(1).map(until_closed);
        let definition =
            prose.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]:"));
        let defined = definition.map(|(_, target)| target.trim_start());
        for target in inline.chain(defined) {
            let target = target.trim().trim_start_matches('<');
            let bare = target.split([' ', '>']).next().unwrap_or_default();
            targets.push((index + 1, bare.to_string()));
        }
    }
    targets
}

/// A line with the `code` in it taken out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The text up to the parenthesis that closes a link; the link may hold pairs of its own.
fn until_closed(rest: &str) -> &str {
    let mut depth = 0_usize;
    let end = rest.find(|c| {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return true,
            ')' => depth -= 1,
            _ => {}
        }
        false
    });
    end.and_then(|end| rest.get(..end)).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_ends_in_spaces_is_found() {
        let tree = Tree::planted(&[("a.md", "good\nbad  \nworse\t\n"), ("b.txt", "not ours \n")]);
        let expected = ["a.md:2: the line ends in spaces", "a.md:3: the line ends in spaces"];
        assert_eq!(trailing_spaces(&tree), expected);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let bad = [
            "[a](gone.md)",
            "![b](../image.png \"title\") and [c](<docs/gone.md>)",
            "[d]: gone.md#part",
            "[e](../../README.md)",
            "[f](/docs/gone)",
        ]
        .join("\n");
        let tree = Tree::planted(&[("docs/page.md", &bad), ("README.md", "")]);
        let expected = [
            "docs/page.md:1: `gone.md` leads to no file",
            "docs/page.md:2: `../image.png` leads to no file",
            "docs/page.md:2: `docs/gone.md` leads to no file",
            "docs/page.md:3: `gone.md#part` leads to no file",
            "docs/page.md:4: `../../README.md` leads to no file",
            "docs/page.md:5: `/docs/gone` leads to no file",
        ];
        assert_eq!(links(&tree), expected);
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let good = [
            "[a](other.md) [b](../README.md#top) [c](#here) [d](.) [e](../docs/)",
            "[f](https://example.org/x) <https://example.org> [g](/README.md)",
            "[h]: other.md",
            "[i](odd_(name).md) and `[j](gone.md)`",
            "```",
            "[k](gone.md)",
            "```",
        ]
        .join("\n");
        let files = [
            ("docs/page.md", good.as_str()),
            ("docs/other.md", ""),
            ("docs/odd_(name).md", ""),
            ("README.md", ""),
        ];
        assert_eq!(links(&Tree::planted(&files)), Vec::<String>::new());
    }
}
