//! Log lines: text for a person at a terminal, one JSON object per line for anything else.
//! # Not here: what is logged.

use crate::config::{Log, LogFormat, LogLevel};
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// Which lines are written.
#[derive(Debug)]
pub(super) struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Writes those of another level from now on.
    pub(super) fn change(&self, level: LogLevel) {
        // It only fails when nobody writes lines any more.
        self.0.reload(targets(level)).unwrap_or_default();
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_target("fanfare", level)
}

/// Begins to write log lines to standard error.
pub(super) fn start(options: &Log) -> Level {
    let terminal = std::io::stderr().is_terminal();
    let text = match options.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let (targets, level) = reload::Layer::new(targets(options.level));
    let registry = tracing_subscriber::registry().with(targets);
    let started = if text {
        registry.with(lines.with_ansi(terminal)).try_init()
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()
    };
    // Only a second call fails: then lines are written already.
    started.unwrap_or_default();
    Level(level)
}
