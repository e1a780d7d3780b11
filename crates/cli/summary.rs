//! What a finished run prints on standard output.

use std::io::Write;

use clientele_personas::format;
use serde_json::{Map, Value, json};

use crate::args::Format;
use crate::failure::Failure;
use crate::job::Finished;
use crate::machine::peak_rss_bytes;

/// Width of the longest persona name that a table shows whole.
const NAME_WIDTH: usize = 44;

/// Prints the summary.
///
/// # Errors
/// When standard output is closed.
pub fn print(finished: &Finished, as_format: Format, currency: &str) -> Result<(), Failure> {
    match as_format {
        Format::Json => print_json(&to_json(finished)),
        Format::Text => print_lines(&to_text(finished, currency)),
    }
}

/// Prints one JSON value.
///
/// # Errors
/// When standard output is closed.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print_lines(&format!("{value:#}\n"))
}

fn print_lines(text: &str) -> Result<(), Failure> {
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

fn to_json(finished: &Finished) -> Value {
    let model = &finished.model;
    let seconds: Map<String, Value> = finished
        .seconds
        .iter()
        .map(|(stage, s)| ((*stage).into(), json!(s)))
        .collect();
    json!({
        "run": finished.dir,
        "model_hash": model.model_hash,
        "assignments_hash": model.assignments_hash,
        "n_rows": model.meaning.n_rows,
        "n_clusters": model.meaning.n_clusters,
        "inertia": model.meaning.inertia,
        "n_iter": model.meaning.n_iter,
        "stop_reason": model.meaning.stop_reason,
        "n_passes": finished.n_passes,
        "certified": model.certified,
        "backend": model.backends,
        "rescued_blocks": finished.n_rescued,
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "personas": finished.personas.personas.iter().map(|p| json!({
            "persona_id": p.persona_id, "rank": p.rank, "name": p.name, "size": p.size, "share": p.share,
        })).collect::<Vec<_>>(),
        "warnings": finished.warnings,
    })
}

fn to_text(finished: &Finished, currency: &str) -> String {
    let model = &finished.model;
    let mut lines = vec![persona_table(finished, currency)];
    lines.push(format!(
        "board        {}",
        finished.dir.join("board.html").display()
    ));
    lines.push(format!(
        "assignments  {}",
        finished.dir.join("assignments").display()
    ));
    let backends: Vec<String> = model
        .backends
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
    if finished.n_rescued > 0 {
        lines.push(format!(
            "rescued      {} blocks that the GPU could not finish",
            finished.n_rescued
        ));
    }
    lines.push(format!("model        {}", &model.model_hash[..16]));
    let seconds: Vec<String> = finished
        .seconds
        .iter()
        .map(|(stage, s)| format!("{stage} {s:.2}"))
        .collect();
    lines.push(format!("seconds      {}", seconds.join(", ")));
    lines.join("\n") + "\n"
}

fn persona_table(finished: &Finished, currency: &str) -> String {
    let has_value = finished.personas.value_total.is_some();
    let names = finished
        .personas
        .personas
        .iter()
        .map(|p| p.name.chars().count());
    let width = names.max().unwrap_or(0).clamp(7, NAME_WIDTH);
    let mut table = format!(
        "rank  {:<width$}  {:>10}  {:>7}",
        "persona", "customers", "share"
    );
    if has_value {
        table += &format!("  {:>11}  {:>12}", "value share", "value each");
    }
    table.push('\n');
    for persona in &finished.personas.personas {
        let name: String = persona.name.chars().take(width).collect();
        table += &format!(
            "{:>4}  {name:<width$}  {:>10}  {:>7}",
            persona.rank,
            format::count(persona.size),
            format::percent(persona.share)
        );
        if let (Some(share), Some(total)) = (persona.value_share, persona.value_total) {
            let each = total / persona.size.max(1) as f64;
            table += &format!(
                "  {:>11}  {:>12}",
                format::percent(share),
                format::money(each, currency)
            );
        }
        table.push('\n');
    }
    table
}
