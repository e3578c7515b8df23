//! `fanfare check`: every setting with its source, and which rule decides over a topic.
//! # Invariants: the report is a function of the configuration.
//! # Not here: what is wrong with a configuration (`config`).

use super::args::CheckArgs;
use crate::config::topics::Topics;
use crate::config::{ConfigError, Loaded, Setting};
use crate::topics::name::TopicName;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
