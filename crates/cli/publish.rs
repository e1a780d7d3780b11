//! The files of a run directory beside the assignments.

use clientele_coordinator::model::Model;
use clientele_data::manifest::Manifest;
use clientele_data::transform::Transform;
use clientele_personas::{Evidence, Personas, board, personas};
use clientele_protocol::FitSpec;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// `manifest.json`: what a run was made from, enough to make it again.
#[derive(Serialize)]
struct Recipe<'a> {
    algorithm_version: &'a str,
    protocol_version: u32,
    fit: &'a FitSpec,
    grid_step: f64,
    transform: &'a Transform,
    n_blocks: u32,
    n_shards: u32,
    #[serde(flatten)]
    input: &'a Manifest,
}

/// What is read of `manifest.json` to compute a run again.
#[derive(Deserialize)]
pub struct Replayed {
    /// The models.
    pub fit: FitSpec,
    /// The input, pinned.
    #[serde(flatten)]
    pub input: Manifest,
}

/// Files of a run directory: names, and contents.
pub type Files = Vec<(String, Vec<u8>)>;

/// Describes the model; every file of its run by name, and the personas.
///
/// # Errors
/// Faults of this program.
pub fn files(
    spec: &FitSpec,
    manifest: &Manifest,
    model: &Model,
    evidence: &Evidence,
) -> Result<(Files, Personas), Failure> {
    let meaning = &model.meaning;
    let recipe = Recipe {
        algorithm_version: &meaning.algorithm_version,
        protocol_version: clientele_protocol::PROTOCOL_VERSION,
        fit: spec,
        grid_step: meaning.grid_step,
        transform: &meaning.transform,
        n_blocks: manifest.n_blocks(),
        n_shards: manifest.n_shards(),
        input: manifest,
    };
    let personas = personas(evidence)
        .map_err(|error| Failure::bug("the evidence does not fit").because(&error))?;
    let board = board(evidence, &personas)
        .map_err(|error| Failure::bug("the board has an error").because(&error))?;
    let files = [
        ("manifest.json", json(&recipe)?),
        ("model.json", json(model)?),
        ("personas.json", json(&personas)?),
        ("board.html", board.into_bytes()),
    ];
    let named = files.map(|(name, bytes)| (name.to_owned(), bytes));
    Ok((named.into(), personas))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::bug("a result is not JSON").because(&error))?;
    bytes.push(b'\n');
    Ok(bytes)
}
