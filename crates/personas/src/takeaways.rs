//! The sentences a board opens with; each is arithmetic on the evidence.

use crate::naming::lower_first;
use crate::{Evidence, Persona, format};

/// A ratio of averages worth a sentence.
const NOTABLE_RATIO: f64 = 1.5;

/// A value share further from the customer share than this many times is worth a sentence.
const NOTABLE_LIFT: f64 = 1.25;

/// Up to three sentences about who brings the value; `personas` by rank.
pub(crate) fn takeaways(evidence: &Evidence, personas: &[Persona]) -> Vec<String> {
    let shown: Vec<&Persona> = personas
        .iter()
        .filter(|persona| !persona.below_minimum_cell)
        .collect();
    if shown.len() < 2 {
        return Vec::new();
    }
    let Some(value) = &evidence.value else {
        return by_size(&shown);
    };
    let label = lower_first(&value.label);
    let mut sentences = Vec::new();
    let headline = shown
        .iter()
        .find(|persona| lift(persona).is_some_and(|lift| lift >= NOTABLE_LIFT));
    if let Some(persona) = headline {
        sentences.push(shares(persona, &label));
    }
    let largest = largest(&shown);
    if let Some(persona) =
        largest.filter(|largest| headline.is_none_or(|first| first.rank != largest.rank))
    {
        sentences.push(format!("The largest group: {}", shares(persona, &label)));
    }
    sentences.extend(contrast(&shown, evidence, &label));
    sentences
}

fn by_size(shown: &[&Persona]) -> Vec<String> {
    let sentence = |persona: &Persona| {
        format!(
            "{} of customers are \u{201c}{}\u{201d}.",
            format::percent(persona.share),
            persona.name
        )
    };
    largest(shown).map(sentence).into_iter().collect()
}

/// "13 % of customers bring 51 % of spend: “Frequent customers”."
fn shares(persona: &Persona, label: &str) -> String {
    let share = format::percent(persona.share);
    match persona.value_share {
        Some(value) => {
            let value = format::percent(value);
            format!(
                "{share} of customers bring {value} of {label}: \u{201c}{}\u{201d}.",
                persona.name
            )
        }
        None => format!("{share} of customers: \u{201c}{}\u{201d}.", persona.name),
    }
}

/// The most and the least valuable average customer, when they are far apart and both worth something.
fn contrast(shown: &[&Persona], evidence: &Evidence, label: &str) -> Option<String> {
    let unit = evidence.value.as_ref()?.unit;
    let worth = |persona: &&Persona| persona.value_per_customer;
    let by_worth =
        |a: &&&Persona, b: &&&Persona| worth(a).unwrap_or(0.0).total_cmp(&worth(b).unwrap_or(0.0));
    let (high, low) = (
        shown.iter().max_by(by_worth)?,
        shown.iter().min_by(by_worth)?,
    );
    let (most, least) = (worth(high)?, worth(low)?);
    if least <= 0.0 || most / least < NOTABLE_RATIO {
        return None;
    }
    let amount = |x: f64| format::value(x, unit, &evidence.currency);
    Some(format!(
        "An average customer in \u{201c}{}\u{201d} brings {} the {label} of one in \u{201c}{}\u{201d}: {} against {}.",
        high.name,
        format::times(most / least),
        low.name,
        amount(most),
        amount(least),
    ))
}

/// Value share over customer share.
fn lift(persona: &Persona) -> Option<f64> {
    Some(persona.value_share? / persona.share)
}

fn largest<'a>(shown: &[&'a Persona]) -> Option<&'a Persona> {
    // Ties go to the better rank: `max_by_key` would keep the last.
    shown
        .iter()
        .rev()
        .max_by_key(|persona| persona.size)
        .copied()
}
