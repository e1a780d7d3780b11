//! The board: one HTML page that opens from disk, made of prepared texts and geometry; the templates only place and escape them.

mod card;
mod compare;
mod made;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::{Evidence, FeatureInfo, Persona, Personas, RankedBy, Unit, format};

/// Colours of personas by rank: Paul Tol's "muted" scheme, distinguishable with any colour vision, and the ink readable on each.
const PALETTE: [(&str, &str); 8] = [
    ("#332288", "#fff"),
    ("#44aa99", "#111"),
    ("#ddcc77", "#111"),
    ("#cc6677", "#111"),
    ("#88ccee", "#111"),
    ("#117733", "#fff"),
    ("#882255", "#fff"),
    ("#999933", "#111"),
];

/// Cards on a board; the others are in `personas.json`. A page of more is no longer read, or opened, by anyone.
const MAX_CARDS: usize = 60;

/// The page could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The personas were not made from this evidence.
    #[error("{n_personas} personas do not describe {n_clusters} clusters")]
    Mismatch {
        /// Personas given.
        n_personas: usize,
        /// Clusters in the evidence.
        n_clusters: usize,
    },
    /// Evidence whose parts do not fit together.
    #[error("the evidence does not fit together")]
    Evidence(#[from] crate::EvidenceError),
    /// The template is wrong.
    #[error("the board template cannot be rendered")]
    Template(#[from] minijinja::Error),
}

#[derive(Serialize)]
struct Board<'a> {
    title: &'a str,
    tiles: Vec<Tile>,
    takeaways: &'a [String],
    ranking: String,
    /// More than one persona: there is something to compare.
    several: bool,
    shares: compare::Shares,
    heat: compare::Heat,
    cards: Vec<card::Card<'a>>,
    n_more_cards: usize,
    made: made::Made<'a>,
}

/// A headline figure.
#[derive(Serialize)]
struct Tile {
    label: String,
    value: String,
}

/// Colour of a persona.
#[derive(Clone, Copy, Serialize)]
struct Colour {
    fill: &'static str,
    ink: &'static str,
}

impl Colour {
    fn of_rank(rank: usize) -> Self {
        let (fill, ink) = PALETTE[rank.saturating_sub(1) % PALETTE.len()];
        Self { fill, ink }
    }
}

/// Renders the board of `personas`, which must come from the same `evidence`. Needs no network, script or other file to be read.
///
/// # Errors
/// [`BoardError`] when evidence and personas do not belong together.
pub fn board(evidence: &Evidence, personas: &Personas) -> Result<String, BoardError> {
    evidence.check()?;
    let n_clusters = evidence.clusters.len();
    let n_personas = personas.personas.len();
    let known = |persona: &Persona| persona.persona_id < n_clusters;
    if n_personas != n_clusters || !personas.personas.iter().all(known) {
        return Err(BoardError::Mismatch {
            n_personas,
            n_clusters,
        });
    }
    let cards = personas
        .personas
        .iter()
        .take(MAX_CARDS)
        .map(|persona| card::card(evidence, personas, persona));
    let board = Board {
        title: &evidence.title,
        tiles: tiles(evidence, personas),
        takeaways: &personas.takeaways,
        ranking: ranking(evidence, personas),
        several: n_personas > 1,
        shares: compare::shares(evidence, personas),
        heat: compare::heat(evidence, personas),
        cards: cards.collect(),
        n_more_cards: n_personas.saturating_sub(MAX_CARDS),
        made: made::made(evidence),
    };
    Ok(environment()?
        .get_template("board.html")?
        .render(Serde(board))?)
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    // A field that the template misspells is an error, not an empty place on the page.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Names that end in .html are escaped; the style sheet holds no data.
    environment.add_template("board.html", include_str!("../../templates/board.html"))?;
    environment.add_template("card.html", include_str!("../../templates/card.html"))?;
    environment.add_template("made.html", include_str!("../../templates/made.html"))?;
    environment.add_template("board.css", include_str!("../../templates/board.css"))?;
    Ok(environment)
}

fn tiles(evidence: &Evidence, personas: &Personas) -> Vec<Tile> {
    let tile = |label: &str, value: String| Tile {
        label: label.to_owned(),
        value,
    };
    let mut tiles = vec![
        tile("Customers", format::count(evidence.n_customers)),
        tile("Personas", format::count(personas.personas.len() as u64)),
    ];
    if let (Some(value), Some(total)) = (&evidence.value, personas.value_total) {
        let text = |x: f64| format::value(x, value.unit, &evidence.currency);
        tiles.push(tile(&format!("{}, total", value.label), text(total)));
        if evidence.n_customers > 0 {
            tiles.push(tile(
                &format!("{} per customer", value.label),
                text(total / evidence.n_customers as f64),
            ));
        }
    }
    tiles
}

fn ranking(evidence: &Evidence, personas: &Personas) -> String {
    match (personas.ranked_by, &evidence.value) {
        (RankedBy::Value, Some(value)) => format!(
            "Ranked by share of {}.",
            crate::naming::lower_first(&value.label)
        ),
        _ => "Ranked by number of customers, because no value column was named.".to_owned(),
    }
}

/// Positions of at most `limit` features, those farthest from everyone for this cluster, in model order.
fn telling_features(evidence: &Evidence, cluster_idx: usize, limit: usize) -> Vec<usize> {
    let mut features = crate::traits::by_distance(evidence, cluster_idx);
    features.truncate(limit);
    features.sort_unstable();
    features
}

/// The label, with "(days)" where numbers stand without their unit and it does not speak of days itself.
fn label_with_unit(info: &FeatureInfo) -> String {
    let label = info.label();
    if info.unit == Unit::Days && !label.to_lowercase().contains("day") {
        format!("{label} (days)")
    } else {
        label.to_owned()
    }
}
