//! What a person sees while a run goes on: a bar on a terminal, plain lines otherwise, always on standard error.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clientele_protocol::jobs::JobProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines come no more often than this within a stage.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress until dropped.
pub struct Display {
    bar: Option<ProgressBar>,
    announced: HashSet<String>,
    last_line: Instant,
}

impl Display {
    /// A bar where standard error is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{prefix:>10} {bar:10} {pos}/{len} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar
        });
        Self {
            bar,
            announced: HashSet::new(),
            last_line: Instant::now(),
        }
    }

    /// Shows where the run stands.
    pub fn show(&mut self, progress: &JobProgress) {
        let message = describe(progress);
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.n_parts);
                bar.set_position(progress.n_done);
                bar.set_prefix(progress.stage.clone());
                bar.set_message(message);
            }
            None => {
                let is_new = self.announced.insert(progress.stage.clone());
                if is_new || self.last_line.elapsed() >= LINE_EVERY {
                    self.last_line = Instant::now();
                    let line = format!(
                        "{}: {}/{} {message}",
                        progress.stage, progress.n_done, progress.n_parts
                    );
                    eprintln!("{}", line.trim_end());
                }
            }
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Most wanted first: a narrow terminal cuts the end.
pub fn describe(progress: &JobProgress) -> String {
    let mut parts = Vec::new();
    if progress.is_waiting {
        parts.push("waiting for a worker".to_owned());
    }
    if progress.stage == "passes" {
        parts.push(format!("pass {}", progress.pass));
        parts.extend(progress.n_moved.map(|n| format!("{n} moved")));
        parts.extend(
            progress
                .inertia
                .map(|inertia| format!("inertia {inertia:.3e}")),
        );
    }
    let seconds = progress.elapsed_ms as f64 / 1e3;
    if seconds > 0.05 && progress.n_done > 0 {
        let rows = progress.n_rows as f64 * progress.n_done as f64 / progress.n_parts.max(1) as f64;
        parts.push(format!("{} rows/s", short(rows / seconds)));
    }
    if progress.stage == "passes" && progress.n_live > 1 {
        parts.push(format!("{} models", progress.n_live));
    }
    parts.join(", ")
}

/// A rate, in three digits or so.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1} G", v / 1e9),
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e3 => format!("{:.0} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}
