//! What every scenario is given: the time, the bar, and this process's own numbers.

use super::process::Process;
use super::progress::Progress;
use super::stopwatch::Stopwatch;

/// What every scenario is given.
pub(super) struct Stage {
    pub(super) watch: Stopwatch,
    pub(super) progress: Progress,
    /// The clients', to see whether they were the limit.
    pub(super) own: Option<Process>,
}
