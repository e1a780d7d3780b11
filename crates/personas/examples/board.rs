//! Renders a board from evidence, to try out templates: `cargo run --example board -- evidence.json > board.html`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: board EVIDENCE.json")?;
    let evidence: clientele_personas::Evidence =
        serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let personas = clientele_personas::personas(&evidence)?;
    for persona in &personas.personas {
        eprintln!("{:>3}  {:>8}  {}", persona.rank, persona.size, persona.name);
    }
    print!("{}", clientele_personas::board(&evidence, &personas)?);
    Ok(())
}
