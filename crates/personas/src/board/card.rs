//! One card a persona.

use serde::Serialize;

use super::{Colour, label_with_unit, telling_features};
use crate::chart::{DistributionChart, distribution, tenth};
use crate::{
    Basis, ClearCut, Direction, Evidence, MINIMUM_CELL, Persona, Personas, Trait, Typical, format,
};

/// Traits on a card.
const MAX_TRAITS: usize = 5;

/// Rows of typical values on a card.
const MAX_TYPICAL: usize = 10;

/// Distribution charts on a card.
const MAX_CHARTS: usize = 6;

/// Standard deviations at the end of a strength bar.
const BAR_END: f64 = 2.0;

/// Everything on one card, as text.
#[derive(Serialize)]
pub(super) struct Card<'a> {
    persona_id: usize,
    rank: usize,
    name: &'a str,
    name_basis: Basis,
    colour: Colour,
    below_minimum_cell: bool,
    figures: Vec<Figure>,
    traits: Vec<TraitLine<'a>>,
    typical: Vec<TypicalLine<'a>>,
    charts: Vec<Chart>,
    n_more_features: usize,
    second_choice: Option<Second<'a>>,
    clear_cut: Option<Clear>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Figure {
    value: String,
    label: String,
}

#[derive(Serialize)]
struct TraitLine<'a> {
    label: &'a str,
    comparison: String,
    detail: String,
    basis: Basis,
    /// Left end and width of the bar, percent; 50 is everyone.
    bar: (f64, f64),
}

#[derive(Serialize)]
struct TypicalLine<'a> {
    label: &'a str,
    value: String,
    middle: Option<String>,
    everyone: Option<String>,
    everyone_middle: Option<String>,
    basis: Basis,
}

#[derive(Serialize)]
struct Chart {
    label: String,
    typical: String,
    everyone: String,
    plot: DistributionChart,
}

#[derive(Serialize)]
struct Second<'a> {
    persona_id: usize,
    name: &'a str,
    share: String,
    has_card: bool,
}

#[derive(Serialize)]
struct Clear {
    text: String,
    /// Clear, in between, border: percent of the bar.
    parts: Option<(f64, f64, f64)>,
}

pub(super) fn card<'a>(
    evidence: &'a Evidence,
    personas: &'a Personas,
    persona: &'a Persona,
) -> Card<'a> {
    let charted = telling_features(evidence, persona.persona_id, MAX_CHARTS);
    let listed = telling_features(evidence, persona.persona_id, MAX_TYPICAL);
    let told = !persona.below_minimum_cell;
    let second_choice = persona.second_choice.as_ref().map(|second| Second {
        persona_id: second.persona_id,
        name: &second.name,
        share: format::percent(second.share),
        has_card: personas
            .personas
            .iter()
            .take(super::MAX_CARDS)
            .any(|other| other.persona_id == second.persona_id),
    });
    let typical = |&idx: &usize| Some(typical_line(evidence, idx, persona.typical.get(idx)?));
    let chart = |&idx: &usize| chart(evidence, idx, persona);
    Card {
        persona_id: persona.persona_id,
        rank: persona.rank,
        name: &persona.name,
        name_basis: persona.name_basis,
        colour: Colour::of_rank(persona.rank),
        below_minimum_cell: persona.below_minimum_cell,
        figures: figures(evidence, personas, persona),
        traits: persona
            .traits
            .iter()
            .take(MAX_TRAITS)
            .map(|line| trait_line(line, evidence))
            .collect(),
        typical: listed.iter().filter_map(typical).collect(),
        charts: if told {
            charted.iter().filter_map(chart).collect()
        } else {
            Vec::new()
        },
        n_more_features: if told {
            evidence.features.len() - listed.len()
        } else {
            0
        },
        second_choice,
        clear_cut: persona.clear_cut.as_ref().filter(|_| told).map(clear),
        notes: &persona.notes,
    }
}

fn figures(evidence: &Evidence, personas: &Personas, persona: &Persona) -> Vec<Figure> {
    let figure = |value: String, label: String| Figure { value, label };
    if persona.below_minimum_cell {
        return vec![figure(
            format!("fewer than {MINIMUM_CELL}"),
            "customers".to_owned(),
        )];
    }
    let mut figures = vec![figure(
        format::percent(persona.share),
        format!("of customers ({})", format::count(persona.size)),
    )];
    let (Some(value), Some(total)) = (&evidence.value, persona.value_total) else {
        return figures;
    };
    let label = crate::naming::lower_first(&value.label);
    let amount = |x: f64| format::value(x, value.unit, &evidence.currency);
    match persona.value_share {
        Some(share) => figures.push(figure(
            format::percent(share),
            format!("of {label} ({})", amount(total)),
        )),
        None => figures.push(figure(amount(total), label.clone())),
    }
    if let Some(each) = persona.value_per_customer {
        let average = personas.value_total.unwrap_or(0.0) / personas.n_customers.max(1) as f64;
        let several = personas.personas.len() > 1;
        let against =
            against_average(each / average).filter(|_| several && average > 0.0 && each > 0.0);
        let label = format!("{label} per customer{}", against.unwrap_or_default());
        figures.push(figure(amount(each), label));
    }
    figures
}

/// ", 2.9 times the average", ", 25 % of the average".
fn against_average(ratio: f64) -> Option<String> {
    let text = match ratio {
        _ if ratio >= 1.05 => format!("{} the average", format::times(ratio)),
        _ if ratio > 0.95 => "about the average".to_owned(),
        _ if ratio > 0.0 => format!("{} of the average", format::percent(ratio)),
        _ => return None,
    };
    Some(format!(", {text}"))
}

fn trait_line<'a>(line: &'a Trait, evidence: &Evidence) -> TraitLine<'a> {
    let unit = evidence
        .features
        .iter()
        .find(|feature| feature.info.name == line.feature)
        .map(|found| found.info.unit);
    let text = |x: f64| format::value(x, unit.unwrap_or_default(), &evidence.currency);
    let (here, everyone) = (text(line.typical), text(line.everyone));
    let detail = if here == everyone {
        format!("typically {here}, as for everyone; the difference is in the average")
    } else {
        format!("typically {here}, against {everyone} for everyone")
    };
    let length = tenth(line.mean_z.abs().min(BAR_END) / BAR_END * 50.0);
    let bar = match line.direction {
        Direction::Higher => (50.0, length),
        Direction::Lower => (tenth(50.0 - length), length),
    };
    TraitLine {
        label: &line.label,
        comparison: line.comparison(),
        detail,
        basis: line.basis,
        bar,
    }
}

fn typical_line<'a>(
    evidence: &Evidence,
    feature_idx: usize,
    typical: &'a Typical,
) -> TypicalLine<'a> {
    let overall = &evidence.features[feature_idx].overall;
    let text = |x: f64| format::value(x, typical.unit, &evidence.currency);
    let range = |low: f64, high: f64| format::range(low, high, typical.unit, &evidence.currency);
    TypicalLine {
        label: &typical.label,
        value: typical
            .median
            .map_or_else(|| format!("fewer than {MINIMUM_CELL} customers"), text),
        middle: typical
            .q25
            .zip(typical.q75)
            .map(|(low, high)| range(low, high)),
        everyone: typical.everyone.map(text),
        everyone_middle: typical
            .everyone
            .filter(|_| overall.n / 2 >= MINIMUM_CELL)
            .map(|_| range(overall.q25, overall.q75)),
        basis: typical.basis,
    }
}

fn chart(evidence: &Evidence, feature_idx: usize, persona: &Persona) -> Option<Chart> {
    let feature = &evidence.features[feature_idx];
    let text = |x: f64| format::value(x, feature.info.unit, &evidence.currency);
    Some(Chart {
        label: label_with_unit(&feature.info),
        typical: text(feature.clusters[persona.persona_id].median),
        everyone: text(feature.overall.median),
        plot: distribution(evidence, feature, persona.persona_id)?,
    })
}

fn clear(clear_cut: &ClearCut) -> Clear {
    let few = || format!("fewer than {MINIMUM_CELL} customers");
    let say = |share: Option<f64>| share.map_or_else(few, format::percent);
    let text = format!(
        "{} belong here clearly; {} stand on the border to another persona",
        say(clear_cut.clear_share),
        say(clear_cut.border_share),
    );
    let parts = clear_cut
        .clear_share
        .zip(clear_cut.border_share)
        .map(|(clear, border)| {
            let between = (1.0 - clear - border).max(0.0);
            (
                tenth(clear * 100.0),
                tenth(between * 100.0),
                tenth(border * 100.0),
            )
        });
    Clear { text, parts }
}
