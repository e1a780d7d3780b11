//! What a finished run prints on standard output.

use std::collections::BTreeMap;
use std::io::Write;

use clientele_coordinator::machine::Outcome;
use clientele_coordinator::model::{BackendRows, Model};
use clientele_kmeans::lloyd::StopReason;
use clientele_personas::{Personas, format};
use serde::{Deserialize, Serialize};

use crate::args::Format;
use crate::failure::Failure;
use crate::machine::peak_rss_bytes;

/// Width of the longest persona name that a table shows whole.
const NAME_WIDTH: usize = 44;

/// What is told of a finished run. Made where it was computed, printed where it was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The run directory.
    pub run: String,
    /// BLAKE3 of everything the model means.
    pub model_hash: String,
    /// Of the set of canonical assignment rows.
    pub assignments_hash: String,
    n_rows: u64,
    n_clusters: usize,
    inertia: f64,
    n_iter: u32,
    stop_reason: StopReason,
    n_passes: u32,
    /// Models fitted, to their end or not.
    #[serde(default)]
    n_candidates: usize,
    /// Those of them that could no longer win; `model.json` says which, when and why.
    #[serde(default)]
    n_given_up: usize,
    certified: u64,
    backend: Vec<BackendRows>,
    rescued_blocks: u64,
    /// Answers that were late, repeated or foreign, and did not count.
    dropped_answers: u64,
    seconds: BTreeMap<String, f64>,
    peak_rss_bytes: Option<u64>,
    currency: String,
    personas: Vec<PersonaLine>,
    warnings: Vec<String>,
}

/// One persona, by rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PersonaLine {
    persona_id: usize,
    rank: usize,
    name: String,
    size: u64,
    share: f64,
    value_share: Option<f64>,
    value_each: Option<f64>,
}

/// Stages in the order they are told.
const STAGES: [&str; 8] = [
    "features", "plan", "ingest", "seeding", "passes", "final", "publish", "total",
];

impl Summary {
    /// Of `outcome`; where it is published is not known yet.
    pub fn new(model: &Model, personas: &Personas, currency: &str, outcome: &Outcome) -> Self {
        let personas = personas.personas.iter().map(|persona| PersonaLine {
            persona_id: persona.persona_id,
            rank: persona.rank,
            name: persona.name.clone(),
            size: persona.size,
            share: persona.share,
            value_share: persona.value_share,
            value_each: persona
                .value_total
                .map(|total| total / persona.size.max(1) as f64),
        });
        let candidates = &outcome.fitted.candidates;
        Self {
            run: String::new(),
            model_hash: model.model_hash.clone(),
            assignments_hash: model.assignments_hash.clone(),
            n_rows: model.meaning.n_rows,
            n_clusters: model.meaning.n_clusters,
            inertia: model.meaning.inertia,
            n_iter: model.meaning.n_iter,
            stop_reason: model.meaning.stop_reason,
            n_passes: outcome.n_passes,
            n_candidates: candidates.len(),
            n_given_up: candidates.iter().filter(|c| c.given_up.is_some()).count(),
            certified: model.certified,
            backend: model.backends.clone(),
            rescued_blocks: outcome.n_rescued,
            dropped_answers: outcome.n_dropped,
            seconds: BTreeMap::new(),
            peak_rss_bytes: peak_rss_bytes(),
            currency: currency.to_owned(),
            personas: personas.collect(),
            warnings: outcome.fitted.warnings.clone(),
        }
    }

    /// Notes how long a stage took, on top of what was noted of it.
    pub fn note(&mut self, stage: &str, seconds: f64) {
        *self.seconds.entry(stage.to_owned()).or_default() += seconds;
    }

    /// What the user should know.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, as_format: Format) -> Result<(), Failure> {
        match as_format {
            Format::Json => print_json(self),
            Format::Text => print_lines(&self.text()),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![self.table()];
        lines.push(format!("board        {}/board.html", self.run));
        lines.push(format!("assignments  {}/assignments", self.run));
        let backends: Vec<String> = self
            .backend
            .iter()
            .map(|ran| {
                format!(
                    "{} ({} rows over all passes)",
                    ran.backend,
                    format::count(ran.n_rows)
                )
            })
            .collect();
        lines.push(format!("backend      {}", backends.join(", ")));
        if self.n_given_up > 0 {
            lines.push(format!(
                "models       {}, {} of them given up when they could no longer win",
                self.n_candidates, self.n_given_up
            ));
        }
        if self.rescued_blocks > 0 {
            lines.push(format!(
                "rescued      {} blocks that the GPU could not finish",
                self.rescued_blocks
            ));
        }
        lines.push(format!("model        {:.16}", self.model_hash));
        let told = STAGES.iter().filter_map(|stage| {
            let seconds = self.seconds.get(*stage)?;
            Some(format!("{stage} {seconds:.2}"))
        });
        let seconds: Vec<String> = told.collect();
        lines.push(format!("seconds      {}", seconds.join(", ")));
        lines.join("\n") + "\n"
    }

    fn table(&self) -> String {
        let names = self.personas.iter().map(|p| p.name.chars().count());
        let width = names.max().unwrap_or(0).clamp(7, NAME_WIDTH);
        let mut table = format!(
            "rank  {:<width$}  {:>10}  {:>7}",
            "persona", "customers", "share"
        );
        if self.personas.iter().any(|p| p.value_each.is_some()) {
            table += &format!("  {:>11}  {:>12}", "value share", "value each");
        }
        table.push('\n');
        for persona in &self.personas {
            let name: String = persona.name.chars().take(width).collect();
            table += &format!(
                "{:>4}  {name:<width$}  {:>10}  {:>7}",
                persona.rank,
                format::count(persona.size),
                format::percent(persona.share)
            );
            if let (Some(share), Some(each)) = (persona.value_share, persona.value_each) {
                table += &format!(
                    "  {:>11}  {:>12}",
                    format::percent(share),
                    format::money(each, &self.currency)
                );
            }
            table.push('\n');
        }
        table
    }
}

/// Prints one JSON value.
///
/// # Errors
/// When standard output is closed.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::bug("a result is not JSON").because(&error))?;
    print_lines(&(json + "\n"))
}

/// Prints text.
///
/// # Errors
/// When standard output is closed.
pub fn print_lines(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|error| {
            Failure::new(
                clientele_data::ErrorKind::Transient,
                "standard output cannot be written",
            )
            .because(&error)
        })
}
