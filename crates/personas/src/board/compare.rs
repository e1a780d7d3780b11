//! The two pictures that compare personas: customers against value, and the table of typical values.

use serde::Serialize;

use super::Colour;
use crate::chart::{Ribbon, ribbons};
use crate::naming::lower_first;
use crate::{Evidence, MINIMUM_CELL, Persona, Personas, Strength, Unit, format};

/// Personas side by side: as many as there are colours.
const MAX_COMPARED: usize = 8;

/// Features in the comparison.
const MAX_FEATURES: usize = 12;

/// Customers against value, a piece a persona.
#[derive(Serialize)]
pub(super) struct Shares {
    /// What the lower bar adds up; none without values, or when they cannot be stacked.
    value_label: Option<String>,
    /// The same within a sentence.
    value_words: String,
    pieces: Vec<Piece>,
}

#[derive(Serialize)]
struct Piece {
    name: String,
    rank: Option<usize>,
    colour: Colour,
    ribbon: Ribbon,
    customers: String,
    value: Option<String>,
}

const OTHERS: Colour = Colour {
    fill: "#bbbbbb",
    ink: "#111",
};

/// Prepares the picture; personas that have no colour of their own, or too few customers, are one last piece together.
pub(super) fn shares(evidence: &Evidence, personas: &Personas) -> Shares {
    let all = &personas.personas;
    let fits = all.len() <= MAX_COMPARED;
    let room = if fits { MAX_COMPARED } else { MAX_COMPARED - 1 };
    let shown: Vec<&Persona> = all
        .iter()
        .filter(|persona| !persona.below_minimum_cell)
        .take(room)
        .collect();
    let others = all.len() - shown.len();
    let stackable = shown.iter().all(|persona| {
        persona
            .value_share
            .is_some_and(|share| (0.0..=1.0).contains(&share))
    });
    let value_of = |persona: &Persona| persona.value_share.filter(|_| stackable);
    let mut rows: Vec<(f64, Option<f64>)> = shown
        .iter()
        .map(|persona| (persona.share, value_of(persona)))
        .collect();
    if others > 0 {
        let rest = |sum: f64| (1.0 - sum).max(0.0);
        let value = stackable.then(|| rest(rows.iter().filter_map(|row| row.1).sum()));
        rows.push((rest(rows.iter().map(|row| row.0).sum()), value));
    }
    let widths: Vec<(f64, f64)> = rows
        .iter()
        .map(|&(share, value)| (share, value.unwrap_or(0.0)))
        .collect();
    let piece = |(idx, (ribbon, &(share, value))): (usize, (Ribbon, &(f64, Option<f64>)))| {
        let persona = shown.get(idx);
        Piece {
            name: persona.map_or_else(
                || format!("{others} more, together"),
                |persona| persona.name.clone(),
            ),
            rank: persona.map(|persona| persona.rank),
            colour: persona.map_or(OTHERS, |persona| Colour::of_rank(persona.rank)),
            customers: format::percent(share),
            value: value.map(format::percent),
            ribbon,
        }
    };
    let pieces = ribbons(&widths)
        .into_iter()
        .zip(&rows)
        .enumerate()
        .map(piece)
        .collect();
    let value = evidence
        .value
        .as_ref()
        .filter(|_| stackable && !shown.is_empty());
    Shares {
        value_label: value.map(|value| value.label.clone()),
        value_words: value.map_or_else(String::new, |value| lower_first(&value.label)),
        pieces,
    }
}

/// The table of typical values: a row a feature, a column a persona.
#[derive(Serialize)]
pub(super) struct Heat {
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// Many columns: on a phone only the arrows have room.
    crowded: bool,
    n_more_personas: usize,
    n_more_features: usize,
}

#[derive(Serialize)]
struct Column {
    name: String,
    rank: usize,
    colour: Colour,
}

#[derive(Serialize)]
struct Row {
    label: String,
    everyone: String,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    value: String,
    /// Arrows: readable without colour.
    symbol: &'static str,
    /// Read out instead of arrows.
    words: String,
    class: &'static str,
}

pub(super) fn heat(evidence: &Evidence, personas: &Personas) -> Heat {
    let told = personas
        .personas
        .iter()
        .filter(|persona| !persona.below_minimum_cell);
    let shown: Vec<&Persona> = told.take(MAX_COMPARED).collect();
    let features = telling(evidence, &shown);
    let column = |persona: &&Persona| Column {
        name: persona.name.clone(),
        rank: persona.rank,
        colour: Colour::of_rank(persona.rank),
    };
    let row = |&feature_idx: &usize| row(evidence, feature_idx, &shown);
    Heat {
        columns: shown.iter().map(column).collect(),
        rows: features.iter().map(row).collect(),
        crowded: shown.len() > 5,
        n_more_personas: personas.personas.len() - shown.len(),
        n_more_features: evidence.features.len() - features.len(),
    }
}

/// The features in which personas differ most, in model order.
fn telling(evidence: &Evidence, shown: &[&Persona]) -> Vec<usize> {
    let spread = |feature_idx: usize| {
        let clusters = &evidence.features[feature_idx].clusters;
        shown
            .iter()
            .map(|persona| clusters[persona.persona_id].mean_z.abs())
            .fold(0.0, f64::max)
    };
    let mut features: Vec<usize> = (0..evidence.features.len()).collect();
    features.sort_by(|&a, &b| spread(b).total_cmp(&spread(a)));
    features.truncate(MAX_FEATURES);
    features.sort_unstable();
    features
}

fn row(evidence: &Evidence, feature_idx: usize, shown: &[&Persona]) -> Row {
    let feature = &evidence.features[feature_idx];
    let unit = feature.info.unit;
    // The row says days, so that the cells need not.
    let text = |median: f64| match unit {
        Unit::Days => format::tick(median, unit, ""),
        _ => format::short(median, unit, &evidence.currency),
    };
    let cell = |persona: &&Persona| {
        let group = &feature.clusters[persona.persona_id];
        if group.n < MINIMUM_CELL {
            return Cell {
                value: "\u{2013}".to_owned(),
                symbol: "",
                words: "not shown".to_owned(),
                class: "z0",
            };
        }
        let (symbol, class, words) = level(group.mean_z);
        Cell {
            value: text(group.median),
            symbol,
            words: words.to_owned(),
            class,
        }
    };
    let everyone = if feature.overall.n >= MINIMUM_CELL {
        text(feature.overall.median)
    } else {
        "\u{2013}".to_owned()
    };
    Row {
        label: super::label_with_unit(&feature.info),
        everyone,
        cells: shown.iter().map(cell).collect(),
    }
}

/// Arrows, class and words of a standardised difference.
fn level(mean_z: f64) -> (&'static str, &'static str, &'static str) {
    match (Strength::of(mean_z), mean_z < 0.0) {
        (None, _) => ("\u{b7}", "z0", "like everyone"),
        (Some(Strength::Moderate), false) => ("▲", "h1", "somewhat higher"),
        (Some(Strength::Strong), false) => ("▲▲", "h2", "clearly higher"),
        (Some(Strength::VeryStrong), false) => ("▲▲▲", "h3", "far higher"),
        (Some(Strength::Moderate), true) => ("▼", "l1", "somewhat lower"),
        (Some(Strength::Strong), true) => ("▼▼", "l2", "clearly lower"),
        (Some(Strength::VeryStrong), true) => ("▼▼▼", "l3", "far lower"),
    }
}
