//! `clientele replay`: a finished run, computed again.

use std::sync::Arc;

use clientele_data::run_dir::{RunDir, verify};
use clientele_data::{ErrorKind, Stores};
use serde::Deserialize;

use crate::args::ReplayArgs;
use crate::evidence::Story;
use crate::failure::Failure;
use crate::job::{self, Job, Planned};
use crate::machine::Machine;
use crate::publish::Replayed;
use crate::summary::print_lines;

/// What a replay is compared with.
#[derive(Deserialize)]
struct Published {
    model_hash: String,
    assignments_hash: String,
}

/// Recomputes a run from its manifest, in a folder that is deleted afterwards, and compares the hashes.
pub fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let machine = Machine::new(&args.machine)?;
    verify(&*args.run)?;
    let recipe: Replayed = read(args, "manifest.json")?;
    let published: Published = read(args, "model.json")?;
    let stores = Stores::parse(&args.stores.stores)?;
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(ErrorKind::Transient, "no temporary folder can be made").because(&error)
    })?;
    let job = Job {
        planned: Planned {
            manifest: Arc::new(recipe.input.attach(&stores)?),
            seconds: 0.0,
        },
        spec: recipe.fit,
        machine,
        story: Story::default(),
    };
    let again = job::run(&job, RunDir::create(&*folder.path().join("replay"))?)?;
    let pairs = [
        ("model", &published.model_hash, &again.model_hash),
        (
            "assignments",
            &published.assignments_hash,
            &again.assignments_hash,
        ),
    ];
    for (what, published, again) in pairs {
        if published != again {
            return Err(Failure::bug(format!(
                "the {what} of `{}` cannot be reproduced: published {published:.16}, computed again {again:.16}",
                args.run.display()
            )));
        }
        print_lines(&format!("{what:<12} {published}  the same again\n"))?;
    }
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(args: &ReplayArgs, name: &str) -> Result<T, Failure> {
    let path = args.run.join(name);
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            ErrorKind::Input,
            format!("`{}` cannot be read", path.display()),
        )
        .because(error)
    };
    let bytes = std::fs::read(&path).map_err(|error| unreadable(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
}
