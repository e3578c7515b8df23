//! Secrets that the command line is given: from files, standard input or the environment.
//! # Invariants: a secret is never an argument, which every user of the machine can read; no error
//! repeats one.
//! # Not here: what they are good for.

use super::error::CommandError;
use crate::dialect::Token;
use clap::Args;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The variable that holds a token.
pub(super) const VARIABLE: &str = "FANFARE_TOKEN";

/// Most bytes of a secret.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// How a client command says who it is.
#[derive(Clone, Debug, Default, Args)]
pub struct TokenArgs {
    /// Show the token in this file, - for standard input [default: that in `$FANFARE_TOKEN`, if any]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token to show, if there is one.
    pub(super) fn token(&self) -> Result<Option<Token>, CommandError> {
        let text = match &self.token_file {
            Some(path) => Some(read_text(path)?),
            None => std::env::var(VARIABLE).ok(),
        };
        let token = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let is_printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if token.as_deref().is_some_and(|token| !is_printable(token)) {
            let problem = "a token has no spaces and nothing but ASCII".to_owned();
            return Err(CommandError::Input { name: "the token".to_owned(), problem });
        }
        Ok(token.map(Token::new))
    }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    let limit = SECRET_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let result = if path.as_os_str() == OsStr::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let failed =
        |problem: String| CommandError::Input { name: path.display().to_string(), problem };
    result.map_err(|error| failed(error.to_string()))?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(failed(format!("it has more than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Reads text without the white space around it.
pub(super) fn read_text(path: &Path) -> Result<String, CommandError> {
    let text = String::from_utf8(read(path)?).map_err(|_| CommandError::Input {
        name: path.display().to_string(),
        problem: "it is not UTF-8".to_owned(),
    })?;
    Ok(text.trim().to_owned())
}
