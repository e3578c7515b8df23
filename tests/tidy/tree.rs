//! The files of the repository, as text.
//! Owns the choice of files: what git tracks or would track, or everything that is not built.
//! # Not here: any opinion about them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Folders that hold what was built or fetched; only looked at where there is no git to ask.
const BUILT: [&str; 5] = [".git", "__pycache__", "artefacts", "node_modules", "target"];

/// One text file.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Whether its name has this extension.
    pub(crate) fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, end)| end == extension)
    }

    /// Whether somebody else wrote it.
    pub(crate) fn is_vendored(&self) -> bool {
        self.path.split('/').any(|part| part == "vendor")
    }

    /// The line with this number, from 1.
    pub(crate) fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// All files of the repository.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The text files.
    files: Vec<File>,
    /// The paths of all files, those that are not text included.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the repository that this test belongs to.
    pub(crate) fn of_this_repository() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let paths = tracked(root).unwrap_or_else(|| walked(root));
        let files = paths.iter().filter_map(|path| {
            let bytes = std::fs::read(root.join(path)).expect("a listed file can be read");
            let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))?;
            Some(File { path: path.clone(), text })
        });
        Tree { files: files.collect(), paths: paths.clone() }
    }

    /// A tree for the tests of a rule.
    pub(crate) fn planted(files: &[(&str, &str)]) -> Tree {
        let file = |&(path, text): &(&str, &str)| File { path: path.into(), text: text.into() };
        Tree {
            files: files.iter().map(file).collect(),
            paths: files.iter().map(|(path, _)| (*path).into()).collect(),
        }
    }

    /// Whether there is a file, or a folder with files, of this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        let below = || self.paths.range(folder.clone()..).next();
        path.is_empty()
            || self.paths.contains(path)
            || below().is_some_and(|next| next.starts_with(&folder))
    }

    /// The text file of this path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// All text files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Our own text files with this extension.
    pub(crate) fn written_in(&self, extension: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.is(extension) && !file.is_vendored())
    }

    /// The sources of the library and the binary.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &File> {
        self.written_in("rs").filter(|file| file.path.starts_with("src/"))
    }
}

/// What git tracks, or would if it were added; nothing where there is no git or no checkout.
fn tracked(root: &Path) -> Option<BTreeSet<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(root).output().ok()?;
    let list = String::from_utf8(output.stdout).ok()?;
    // The index still names what was deleted and not yet committed.
    let exists = |path: &&str| root.join(path).is_file();
    let paths: BTreeSet<String> =
        list.split_terminator('\0').filter(exists).map(String::from).collect();
    // Unpacked inside some other checkout, this folder may be ignored there: then look for yourself.
    (output.status.success() && paths.contains("Cargo.toml")).then_some(paths)
}

/// Every file below the root that was not built.
fn walked(root: &Path) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read");
            let name = entry.file_name();
            let kind = entry.file_type().expect("an entry has a kind");
            if kind.is_dir() && !BUILT.iter().any(|built| name == *built) {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(root).expect("the walk stays below the root");
                paths.insert(relative.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths
}

#[test]
fn git_and_the_walk_agree_on_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = |paths: BTreeSet<String>| -> Vec<String> {
        paths.into_iter().filter(|path| path.starts_with("src/")).collect()
    };
    let walk = sources(walked(root));
    assert!(walk.contains(&"src/lib.rs".to_string()));
    if let Some(git) = tracked(root) {
        assert_eq!(sources(git), walk);
    }
}

#[test]
fn a_folder_is_there_when_a_file_in_it_is() {
    let tree = Tree::planted(&[("docs/guide/start.md", ""), ("docs-old.md", "")]);
    for path in ["docs", "docs/guide", "docs/guide/start.md", ""] {
        assert!(tree.has(path), "{path}");
    }
    for path in ["doc", "docs/guide/start", "src"] {
        assert!(!tree.has(path), "{path}");
    }
}
