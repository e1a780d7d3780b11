//! `clientele fit`: a feature table that the user already has.

use clientele_data::manifest::{Columns, TableSpec};
use clientele_data::run_dir::RunDir;
use clientele_features::{FeatureEntry, FitSettings, Unit};

use clientele_protocol::FitSpec;

use crate::args::{FitArgs, ModelArgs, TableArgs};
use crate::cluster::client;
use crate::evidence::Story;
use crate::failure::Failure;
use crate::job::{self, Job};
use crate::machine::Machine;

/// Fits and publishes: here, or on a cluster.
pub fn fit(args: &FitArgs) -> Result<(), Failure> {
    if let Some(coordinator) = args.cluster.client() {
        return client::fit(&coordinator, args);
    }
    let machine = Machine::new(&args.machine)?;
    let (mut spec, nulls) = job::fit_spec(&args.model, &FitSettings::default())?;
    let table = TableSpec {
        inputs: args.table.tables.clone(),
        id: args.table.id.clone(),
        columns: args
            .table
            .columns
            .clone()
            .map_or(Columns::AllNumeric, Columns::Named),
        nulls,
        value: args.table.value.clone(),
    };
    let planned = job::plan(&table)?;
    let manifest = &planned.manifest;
    if let Some(file) = &args.table.init {
        let features: Vec<String> = manifest
            .features()
            .iter()
            .map(|column| column.name.clone())
            .collect();
        start_from(&mut spec, &args.model, job::read_init(file, &features)?)?;
    }
    let sources = format!(
        "{} files, {} rows",
        manifest.files().len(),
        manifest.n_rows()
    );
    let story = Story {
        sources: vec![sources],
        ..story(&args.table)
    };
    let dir = RunDir::create(&*args.out)?;
    let job = Job {
        planned,
        spec,
        machine,
        story,
    };
    job::run(&job, dir)?.print(args.machine.format)
}

/// Starts from given centroids, in raw units, instead of seeding.
///
/// # Errors
/// When `--k` asks for another number of them.
pub fn start_from(
    spec: &mut FitSpec,
    args: &ModelArgs,
    centroids: Vec<Vec<f64>>,
) -> Result<(), Failure> {
    let n_clusters = centroids.len();
    if args
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
    spec.init = Some(centroids);
    spec.check()?;
    Ok(())
}

/// What is told of a table of which only its columns are known.
pub fn story(args: &TableArgs) -> Story {
    Story {
        title: args
            .title
            .clone()
            .unwrap_or_else(|| "Customer personas".into()),
        value: args.value.as_deref().map(value_entry),
        ..Story::default()
    }
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
