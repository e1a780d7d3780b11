//! What coordinator, workers and client have logged, with simulated times: the same for the same seed.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

/// A log of one simulation.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    text: String,
    /// Of the last line; what is done to the hosts has no time of its own.
    time: Duration,
}

impl Trace {
    /// Runs a simulation and logs what it does.
    pub fn of<T>(&self, simulation: impl FnOnce() -> T) -> T {
        let subscriber = tracing_subscriber::registry().with(self.clone());
        tracing::subscriber::with_default(subscriber, simulation)
    }

    pub fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text
            .clone()
    }
}

impl<S: Subscriber> Layer<S> for Trace {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = ["clientele", "simulation"];
        let is_ours = ours.iter().any(|name| metadata.target().starts_with(name));
        is_ours && *metadata.level() <= Level::INFO
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.time = turmoil::sim_elapsed().unwrap_or(log.time);
        let seconds = log.time.as_secs_f64();
        let target = event.metadata().target();
        let _ = write!(log.text, "{seconds:9.3} {target}:");
        event.record(&mut Line(&mut log.text));
        log.text.push('\n');
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            // Of the real clock.
            "seconds" => Ok(()),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
