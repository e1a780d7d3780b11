//! From evidence to personas: ranked, named, with typical values, second choices and how clear-cut membership is.

use serde::Serialize;

use crate::naming::names;
use crate::takeaways::takeaways;
use crate::traits::{Trait, traits};
use crate::{
    Basis, ClusterEvidence, Distribution, Evidence, EvidenceError, FeatureEvidence, MARGIN_BINS,
    MINIMUM_CELL, Unit, format,
};

/// Margin from which a customer clearly belongs to a persona: at most half as far (squared) as to the next.
const CLEAR_MARGIN: f64 = 0.5;

/// Margin below which a customer stands on the border of two personas.
const BORDER_MARGIN: f64 = 0.1;

/// What `personas.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Personas {
    /// Heading.
    pub title: String,
    /// Customers in all personas.
    pub n_customers: u64,
    /// What rank and order follow.
    pub ranked_by: RankedBy,
    /// Name of the value column.
    pub value_column: Option<String>,
    /// Sum of the value column.
    pub value_total: Option<f64>,
    /// Figures that concern fewer customers are left out.
    pub minimum_cell: u64,
    /// What the board says first, as sentences.
    pub takeaways: Vec<String>,
    /// By rank.
    pub personas: Vec<Persona>,
}

/// What personas are ranked by; ties go to the lower `persona_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RankedBy {
    /// Share of the value column.
    Value,
    /// Number of customers: there is no value column.
    Size,
}

/// One persona.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Persona {
    /// Index of the cluster, as in `model.json` and the assignments.
    pub persona_id: usize,
    /// Unique in this run.
    pub name: String,
    /// `modelled` for a suggested name, `told_by_you` for a given one.
    pub name_basis: Basis,
    /// Customers; exact, as in `model.json`, and written "fewer than 11" on the board where it is.
    pub size: u64,
    /// Fraction of all customers.
    pub share: f64,
    /// 1 is the first.
    pub rank: usize,
    /// Sum of the value column.
    pub value_total: Option<f64>,
    /// Fraction of the value of all customers; none when that is not positive.
    pub value_share: Option<f64>,
    /// Mean of the value column.
    pub value_per_customer: Option<f64>,
    /// Fewer than [`MINIMUM_CELL`] customers: nothing below is told.
    pub below_minimum_cell: bool,
    /// What sets it apart, strongest first.
    pub traits: Vec<Trait>,
    /// Every feature, in model order.
    pub typical: Vec<Typical>,
    /// Where most of its customers would be otherwise.
    pub second_choice: Option<SecondChoice>,
    /// How clearly its customers belong to it.
    pub clear_cut: Option<ClearCut>,
    /// What the user wrote about it.
    pub notes: Vec<String>,
}

/// Typical values of one feature, raw units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Typical {
    /// Column name.
    pub feature: String,
    /// Label for people.
    pub label: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Lower quartile; none when the middle half would be fewer than [`MINIMUM_CELL`] customers, as `q75`.
    pub q25: Option<f64>,
    /// Median; none for fewer than [`MINIMUM_CELL`] customers.
    pub median: Option<f64>,
    /// Upper quartile.
    pub q75: Option<f64>,
    /// Median of everyone.
    pub everyone: Option<f64>,
    /// Distance of the group's mean from everyone's, in standard deviations, clustered units.
    pub mean_z: Option<f64>,
    /// The line as people read it: "6 (middle half 4–9), everyone 2".
    pub text: String,
    /// Measured, or unknown when nothing may be told.
    pub basis: Basis,
}

/// The persona that is second nearest for most of a persona's customers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SecondChoice {
    /// Its cluster index.
    pub persona_id: usize,
    /// Its name.
    pub name: String,
    /// Fraction of this persona's customers for whom it is second nearest.
    pub share: f64,
    /// Depends on the model's distances.
    pub basis: Basis,
}

/// How clearly customers belong to their persona, by `margin = (d2 - d1) / d2`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClearCut {
    /// Fraction at least twice as near to this persona as to any other (squared distance); none when that is a small cell.
    pub clear_share: Option<f64>,
    /// Fraction within a tenth of the border to another persona; none when that is a small cell.
    pub border_share: Option<f64>,
    /// Depends on the model's distances.
    pub basis: Basis,
}

/// Describes, names and ranks the clusters.
///
/// # Errors
/// [`EvidenceError`] when the parts of the evidence do not fit together.
pub fn personas(evidence: &Evidence) -> Result<Personas, EvidenceError> {
    evidence.check()?;
    let order = order(evidence);
    let names = names(evidence, &order);
    let total = evidence.value_total().map(|total| total.to_f64());
    let personas: Vec<Persona> = order
        .iter()
        .enumerate()
        .map(|(position, &cluster_idx)| persona(evidence, cluster_idx, position + 1, total, &names))
        .collect();
    let ranked_by = if evidence.value.is_some() {
        RankedBy::Value
    } else {
        RankedBy::Size
    };
    Ok(Personas {
        title: evidence.title.clone(),
        n_customers: evidence.n_customers,
        ranked_by,
        value_column: evidence.value.as_ref().map(|value| value.name.clone()),
        value_total: total,
        minimum_cell: MINIMUM_CELL,
        takeaways: takeaways(evidence, &personas),
        personas,
    })
}

/// Cluster indices by value, or by size without values, largest first; ties by index.
fn order(evidence: &Evidence) -> Vec<usize> {
    let mut order: Vec<usize> = (0..evidence.clusters.len()).collect();
    let key = |cluster: &ClusterEvidence| match cluster.value_total {
        Some(value) => value.ten_thousandths(),
        None => i128::from(cluster.size),
    };
    order.sort_by_key(|&idx| std::cmp::Reverse(key(&evidence.clusters[idx])));
    order
}

fn persona(
    evidence: &Evidence,
    cluster_idx: usize,
    rank: usize,
    total: Option<f64>,
    names: &[String],
) -> Persona {
    let cluster = &evidence.clusters[cluster_idx];
    let told = cluster.size >= MINIMUM_CELL;
    let value = cluster
        .value_total
        .filter(|_| told)
        .map(|value| value.to_f64());
    let share_of = |total: Option<f64>| Some(value? / total.filter(|&total| total > 0.0)?);
    Persona {
        persona_id: cluster_idx,
        name: names[cluster_idx].clone(),
        name_basis: if cluster.given_name.is_some() {
            Basis::ToldByYou
        } else {
            Basis::Modelled
        },
        size: cluster.size,
        share: fraction(cluster.size, evidence.n_customers),
        rank,
        value_total: value,
        value_share: share_of(total),
        value_per_customer: value.map(|value| value / cluster.size as f64),
        below_minimum_cell: !told,
        traits: if told {
            traits(evidence, cluster_idx)
        } else {
            Vec::new()
        },
        typical: if told {
            typical(evidence, cluster_idx)
        } else {
            Vec::new()
        },
        second_choice: second_choice(cluster, names),
        clear_cut: clear_cut(&cluster.margin_histogram),
        notes: cluster.notes.clone(),
    }
}

fn typical(evidence: &Evidence, cluster_idx: usize) -> Vec<Typical> {
    let currency = &evidence.currency;
    evidence
        .features
        .iter()
        .map(|feature| typical_of(feature, &feature.clusters[cluster_idx], currency))
        .collect()
}

fn typical_of(feature: &FeatureEvidence, group: &Distribution, currency: &str) -> Typical {
    let unit = feature.info.unit;
    let told = group.n >= MINIMUM_CELL;
    // The middle half is a statement about half of the group.
    let range_told = group.n / 2 >= MINIMUM_CELL;
    let everyone = (feature.overall.n >= MINIMUM_CELL).then_some(feature.overall.median);
    let mut text = if told {
        format::value(group.median, unit, currency)
    } else {
        format!("fewer than {MINIMUM_CELL} customers")
    };
    if range_told {
        text += &format!(
            " (middle half {})",
            format::range(group.q25, group.q75, unit, currency)
        );
    }
    if let Some(everyone) = everyone {
        text += &format!(", everyone {}", format::value(everyone, unit, currency));
    }
    Typical {
        feature: feature.info.name.clone(),
        label: feature.info.label().to_owned(),
        unit,
        q25: range_told.then_some(group.q25),
        median: told.then_some(group.median),
        q75: range_told.then_some(group.q75),
        everyone,
        mean_z: told.then_some(group.mean_z),
        text,
        basis: if told {
            Basis::Measured
        } else {
            Basis::Unknown
        },
    }
}

fn second_choice(cluster: &ClusterEvidence, names: &[String]) -> Option<SecondChoice> {
    let counts = &cluster.second_choice;
    let n: u64 = saturating_sum(counts);
    // `max_by_key` keeps the last of equals; reversed, ties go to the lowest index.
    let (persona_id, &count) = counts
        .iter()
        .enumerate()
        .rev()
        .max_by_key(|&(_, &count)| count)?;
    let told = count >= MINIMUM_CELL && cluster.size >= MINIMUM_CELL;
    told.then(|| SecondChoice {
        persona_id,
        name: names[persona_id].clone(),
        share: fraction(count, n),
        basis: Basis::Modelled,
    })
}

fn clear_cut(margin_histogram: &[u64]) -> Option<ClearCut> {
    let n = saturating_sum(margin_histogram);
    if n < MINIMUM_CELL {
        return None;
    }
    let bin_of = |margin: f64| (margin * MARGIN_BINS as f64) as usize;
    let share = |count: u64| (count == 0 || count >= MINIMUM_CELL).then(|| fraction(count, n));
    let clear = saturating_sum(&margin_histogram[bin_of(CLEAR_MARGIN)..]);
    let border = saturating_sum(&margin_histogram[..bin_of(BORDER_MARGIN)]);
    Some(ClearCut {
        clear_share: share(clear),
        border_share: share(border),
        basis: Basis::Modelled,
    })
}

fn saturating_sum(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum: u64, &count| sum.saturating_add(count))
}

/// `part / whole`, 0 of nothing.
pub(crate) fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
