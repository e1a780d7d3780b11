//! `clientele fit`: a feature table that the user already has.

use clientele_data::manifest::{Columns, TableSpec};
use clientele_data::run_dir::RunDir;
use clientele_features::{FeatureEntry, FitSettings, Unit};

use crate::args::FitArgs;
use crate::evidence::Story;
use crate::failure::Failure;
use crate::job::{self, Job};
use crate::machine::Machine;
use crate::summary;

/// Fits and publishes.
pub fn fit(args: &FitArgs) -> Result<(), Failure> {
    let machine = Machine::new(&args.machine)?;
    let (mut spec, nulls) = job::fit_spec(&args.model, &FitSettings::default())?;
    let table = TableSpec {
        inputs: args.tables.clone(),
        id: args.id.clone(),
        columns: args
            .columns
            .clone()
            .map_or(Columns::AllNumeric, Columns::Named),
        nulls,
        value: args.value.clone(),
    };
    let planned = job::plan(&table)?;
    let manifest = &planned.manifest;
    if let Some(file) = &args.init {
        let features: Vec<String> = manifest
            .features()
            .iter()
            .map(|column| column.name.clone())
            .collect();
        let rows = job::read_init(file, &features)?;
        let n_clusters = rows.len();
        if args
            .model
            .k
            .is_some_and(|k| (k.min, k.max) != (n_clusters, n_clusters))
        {
            return Err(Failure::usage(format!(
                "--init has {n_clusters} centroids, and --k asks for something else"
            ))
            .hint("leave --k away: --init decides it"));
        }
        spec.k_range = (n_clusters, n_clusters);
        spec.n_restarts = 1;
        spec.init = Some(rows);
        spec.check()?;
    }
    let story = Story {
        title: args
            .title
            .clone()
            .unwrap_or_else(|| "Customer personas".into()),
        sources: vec![format!(
            "{} files, {} rows",
            manifest.files().len(),
            manifest.n_rows()
        )],
        value: args.value.as_deref().map(value_entry),
        ..Story::default()
    };
    let dir = RunDir::create(&args.out)?;
    let finished = job::run(
        &Job {
            planned,
            spec,
            machine,
            story,
        },
        dir,
    )?;
    summary::print(&finished, args.machine.format, "")
}

/// A value column that nothing is known of but its name.
fn value_entry(name: &str) -> FeatureEntry {
    FeatureEntry {
        name: name.into(),
        label: name.into(),
        unit: Unit::Money,
        high_word: String::new(),
        low_word: String::new(),
        one_word: None,
        description: String::new(),
    }
}
