//! The files of a run directory, committed last.

use clientele_coordinator::model::Model;
use clientele_data::manifest::Manifest;
use clientele_data::run_dir::RunDir;
use clientele_data::transform::Transform;
use clientele_personas::{Evidence, Personas, board, personas};
use clientele_protocol::FitSpec;
use serde::Serialize;

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

/// Describes the model, writes every file and commits.
///
/// # Errors
/// When the folder cannot be written; then it is not committed.
pub fn publish(
    dir: RunDir,
    spec: &FitSpec,
    manifest: &Manifest,
    model: &Model,
    evidence: &Evidence,
) -> Result<Personas, Failure> {
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
    dir.write_file("manifest.json", &json(&recipe)?)?;
    dir.write_file("model.json", &json(model)?)?;
    dir.write_file("personas.json", &json(&personas)?)?;
    dir.write_file("board.html", board.as_bytes())?;
    dir.commit()?;
    Ok(personas)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::bug("a result is not JSON").because(&error))?;
    bytes.push(b'\n');
    Ok(bytes)
}
