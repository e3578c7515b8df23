//! Where settings come from: a file, variables, flags.
//! Owns everything of the configuration that looks at the process.
//! # Invariants: only variables that begin with `FANFARE__` are read, because a container platform
//! makes up names such as `FANFARE_PORT` for a service called fanfare.
//! # Not here: what the texts mean (`load`).

use super::load::ConfigError;
use super::spelled::shorten;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The file that is read if no other is named and it is there.
pub const FILE: &str = "fanfare.toml";
/// What the names of variables begin with.
pub const PREFIX: &str = "FANFARE__";
/// Most bytes of a configuration file.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Everything that a configuration is made from, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The name and the text of the configuration file.
    pub file: Option<(PathBuf, String)>,
    /// Names and values of variables; those without the prefix are ignored.
    pub env: Vec<(String, String)>,
    /// What the command line says.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// Reads the file and the variables of this process.
    /// The file is `path`, or `./fanfare.toml` if that is there.
    ///
    /// # Errors
    /// The file cannot be read, or a variable of ours is not UTF-8.
    pub fn gather(path: Option<&Path>, flags: Vec<Flag>) -> Result<Sources, ConfigError> {
        let file = match path {
            Some(path) => Some((path.to_owned(), text(path, read(path))?)),
            None => find(Path::new(FILE))?,
        };
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(PREFIX) {
                continue;
            }
            let value = value.into_string().map_err(|_| ConfigError::BadValue {
                found_in: Source::Variable(name.clone()),
                problem: "the value is not UTF-8".to_owned(),
            })?;
            env.push((name, value));
        }
        // The process has them in no order; an error should not depend on that.
        env.sort();
        Ok(Sources { file, env, flags })
    }
}

/// The file, unless it is not there.
fn find(path: &Path) -> Result<Option<(PathBuf, String)>, ConfigError> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some((path.to_owned(), text(path, other)?))),
    }
}

/// The bytes of a file, and one more if it is too long.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(FILE_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(path: &Path, bytes: io::Result<Vec<u8>>) -> Result<String, ConfigError> {
    let problem = match bytes.map(String::from_utf8) {
        Ok(Ok(text)) if text.len() <= FILE_BYTES_MAX => return Ok(text),
        Ok(Ok(_)) => format!("the file is longer than {FILE_BYTES_MAX} bytes"),
        Ok(Err(_)) => "the file is not UTF-8".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    Err(ConfigError::Unreadable { path: path.to_owned(), problem })
}

/// One setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag as it is typed: `--listen`.
    pub name: &'static str,
    /// The setting it stands for: `listen.public`.
    pub key: &'static str,
    /// Its value as it is typed.
    pub value: String,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Another setting, which this one inherits.
    Setting(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Variable(name) => f.write_str(&shorten(name)),
            Source::Flag(name) => f.write_str(name),
            Source::Setting(key) => f.write_str(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_refused_by_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let binary = dir.path().join("binary.toml");
        std::fs::write(&binary, b"a = '\xff'").expect("a file");
        let long = dir.path().join("long.toml");
        std::fs::write(&long, vec![b'#'; FILE_BYTES_MAX + 1]).expect("a file");
        let full = dir.path().join("full.toml");
        std::fs::write(&full, vec![b'#'; FILE_BYTES_MAX]).expect("a file");

        let cases = [
            (dir.path().join("absent.toml"), Some("cannot be read: ")),
            (dir.path().to_owned(), Some("cannot be read: ")),
            (binary, Some("the file is not UTF-8")),
            (long, Some("the file is longer than 1048576 bytes")),
            (full, None),
        ];
        for (path, expected) in cases {
            let problem = text(&path, read(&path)).err().map(|error| error.to_string());
            match (problem, expected) {
                (None, None) => {}
                (Some(problem), Some(words)) => {
                    let expected = format!("{}: {words}", path.display());
                    assert!(problem.starts_with(&expected), "{problem}");
                }
                (problem, expected) => panic!("{problem:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn only_a_file_that_nobody_named_may_be_absent() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        assert_eq!(find(&path), Ok(None));
        let named = Sources::gather(Some(&path), Vec::new());
        assert!(matches!(named, Err(ConfigError::Unreadable { .. })));

        std::fs::write(&path, "shards = 1").expect("a file");
        let expected = Some((path.clone(), "shards = 1".to_owned()));
        assert_eq!(find(&path), Ok(expected.clone()));
        let named = Sources::gather(Some(&path), Vec::new()).expect("readable");
        assert_eq!(named.file, expected);
    }
}
