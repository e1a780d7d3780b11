//! `clientele run`, `features` and `init`: from raw retail tables.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clientele_data::manifest::{Columns, NullPolicy, TableSpec};
use clientele_data::run_dir::RunDir;
use clientele_features::{BuildOptions, Config, FeatureTable};
use clientele_personas::Counted;
use clientele_protocol::FitSpec;
use clientele_protocol::jobs::FitJob;

use crate::args::{
    BackendArg, ClientArgs, FeaturesArgs, InitArgs, MachineArgs, ModelArgs, RunArgs,
};
use crate::cluster::client::{self, Places};
use crate::evidence::Story;
use crate::failure::Failure;
use crate::job::{self, Job};
use crate::machine::Machine;
use crate::summary::Summary;

/// The folder of a run that holds its feature table.
const FEATURES_DIR: &str = "features";

/// `clientele run`.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let settings = Settings::new(&config, &args.model, &args.machine)?;
    if let Some(coordinator) = args.cluster.client() {
        return run_on_cluster(&coordinator, args, &config, settings);
    }
    let dir = RunDir::create(&*args.out)?;
    fit(&config, settings, dir)?.print(args.machine.format)
}

/// Features are made here, into the run directory; everything after that is the cluster's.
fn run_on_cluster(
    coordinator: &ClientArgs,
    args: &RunArgs,
    config: &Config,
    settings: Settings,
) -> Result<(), Failure> {
    let places = Places::new(&args.cluster.submit)?;
    let out = places.locate(&args.out.display().to_string())?;
    let dir = RunDir::create(&*args.out)?;
    let (features, _) = build_features(config, &settings.machine, &dir)?;
    // The coordinator goes on in this folder.
    drop(dir);
    let table = table_spec(&features, settings.nulls);
    let job = FitJob {
        tables: vec![places.locate(&features.path.display().to_string())?],
        id: table.id,
        columns: features
            .features
            .iter()
            .map(|entry| entry.name.clone())
            .collect(),
        value: table.value,
        nulls: settings.nulls,
        out,
        spec: settings.spec,
        story: client::story_json(&story(config, &features))?,
        adopt_out: true,
        wait_for_workers_ms: client::wait_ms(&args.cluster.submit),
    };
    client::submit_and_follow(
        coordinator,
        &args.cluster.submit,
        &job,
        args.machine.format,
        &args.out,
    )
}

/// What a config and flags come to; checked before anything is written.
pub struct Settings {
    spec: FitSpec,
    nulls: NullPolicy,
    machine: Machine,
}

impl Settings {
    /// Flags over the config over defaults.
    ///
    /// # Errors
    /// Settings that are not what their flags take.
    pub fn new(config: &Config, model: &ModelArgs, machine: &MachineArgs) -> Result<Self, Failure> {
        let (spec, nulls) = job::fit_spec(model, &config.fit)?;
        let machine = Machine::new(&with_settings(machine, config)?)?;
        Ok(Self {
            spec,
            nulls,
            machine,
        })
    }
}

/// Features, fit, personas and board of `config`'s tables, published in `dir`.
///
/// # Errors
/// Whatever ends the run; then nothing is published.
pub fn fit(config: &Config, settings: Settings, dir: RunDir) -> Result<Summary, Failure> {
    let Settings {
        spec,
        nulls,
        machine,
    } = settings;
    let (features, seconds) = build_features(config, &machine, &dir)?;
    let job = Job {
        planned: job::plan(&table_spec(&features, nulls))?,
        spec,
        machine,
        story: story(config, &features),
    };
    let mut summary = job::run(&job, dir)?;
    summary.note("features", seconds);
    summary.note("total", seconds);
    Ok(summary)
}

/// Makes the feature table inside of a run directory; it, and the seconds it took.
fn build_features(
    config: &Config,
    machine: &Machine,
    dir: &RunDir,
) -> Result<(FeatureTable, f64), Failure> {
    let started = Instant::now();
    let options = BuildOptions {
        memory_bytes: Some(machine.memory_bytes),
        n_threads: machine.threads(),
    };
    let out = job::path_of(dir).join(FEATURES_DIR);
    let features = clientele_features::build(config, &out, &options)?;
    Ok((features, started.elapsed().as_secs_f64()))
}

/// What of a feature table is clustered.
fn table_spec(features: &FeatureTable, nulls: NullPolicy) -> TableSpec {
    let names = features.features.iter().map(|entry| entry.name.clone());
    TableSpec {
        inputs: vec![features.path.display().to_string()],
        id: Some(features.id_column.clone()),
        columns: Columns::Named(names.collect()),
        nulls,
        value: features.value.as_ref().map(|entry| entry.name.clone()),
    }
}

/// `clientele features`.
pub fn features(args: &FeaturesArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let machine = MachineArgs {
        threads: args.threads,
        memory: args.memory,
        ..MachineArgs::default()
    };
    let machine = Machine::new(&with_settings(&machine, &config)?)?;
    let options = BuildOptions {
        memory_bytes: Some(machine.memory_bytes),
        n_threads: machine.threads(),
    };
    let table = clientele_features::build(&config, &args.out, &options)?;
    println!(
        "{} customers, {} features from {} lines, as of {}",
        table.customers.kept,
        table.features.len(),
        table.lines.kept,
        table.as_of
    );
    for dropped in dropped(&table) {
        println!("left out     {} {}", dropped.count, dropped.what);
    }
    println!("table        {}", table.path.display());
    println!("dictionary   {}", table.dictionary_path.display());
    Ok(())
}

/// `clientele init`.
pub fn init(args: &InitArgs) -> Result<(), Failure> {
    let files = clientele_data::input::expand(&args.tables)?;
    let proposal = clientele_features::propose(&files)?;
    if args.output == Path::new("-") {
        print!("{proposal}");
        return Ok(());
    }
    let cannot_write = |error: std::io::Error| {
        let there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let kind = if there {
            clientele_data::ErrorKind::Conflict
        } else {
            clientele_data::ErrorKind::Usage
        };
        Failure::new(kind, format!("cannot write `{}`", args.output.display()))
            .because(&error)
            .hint("choose another place with --output, or print it with --output -")
    };
    // Never over a file that somebody may have edited.
    let mut file = std::fs::File::create_new(&args.output).map_err(cannot_write)?;
    file.write_all(proposal.as_bytes()).map_err(cannot_write)?;
    println!("wrote {}", args.output.display());
    println!(
        "next: read it, then `clientele run -c {} --out personas`",
        args.output.display()
    );
    Ok(())
}

/// Reads a config; what is wrong with it is told with its path.
fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| Failure::from(error).while_reading(path))
}

/// Sign before money.
pub fn currency(config: &Config) -> &str {
    config.personas.currency.as_deref().unwrap_or_default()
}

/// Flags over the config's `[fit]`.
fn with_settings(args: &MachineArgs, config: &Config) -> Result<MachineArgs, Failure> {
    let settings = &config.fit;
    let mut merged = args.clone();
    merged.backend =
        job::setting::<BackendArg>(args.backend, "fit.backend", settings.backend.as_deref())?;
    merged.workers = args.workers.or(settings.workers);
    if let (None, Some(text)) = (args.memory, &settings.memory) {
        merged.memory = Some(
            text.parse()
                .map_err(|why| Failure::usage(format!("`fit.memory`: {why}")))?,
        );
    }
    Ok(merged)
}

fn story(config: &Config, features: &FeatureTable) -> Story {
    Story {
        title: config
            .personas
            .title
            .clone()
            .unwrap_or_else(|| "Customer personas".into()),
        currency: currency(config).into(),
        dictionary: features.features.clone(),
        value: features.value.clone(),
        sources: vec![
            format!(
                "{} transaction lines, {} of them used",
                clientele_personas::format::count(features.lines.read),
                clientele_personas::format::count(features.lines.kept)
            ),
            format!("as of {}", features.as_of),
        ],
        dropped: dropped(features),
    }
}

fn dropped(features: &FeatureTable) -> Vec<Counted> {
    let (lines, customers) = (&features.lines, &features.customers);
    [
        ("lines without a customer", lines.no_customer),
        ("lines without a timestamp", lines.no_timestamp),
        ("lines without an amount", lines.no_amount),
        ("lines without a basket", lines.no_basket),
        ("lines dropped by the `where` of the config", lines.filtered),
        (
            "lines on or after the day the features are taken as of",
            lines.after_as_of,
        ),
        (
            "customers below the minimum activity",
            customers.below_activity,
        ),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(what, count)| Counted {
        what: what.into(),
        count,
    })
    .collect()
}

/// The first of `base`, `base-2`, `base-3`, ... that is free.
pub fn free_folder(base: &str) -> PathBuf {
    let nth = |n: u32| {
        if n == 1 {
            PathBuf::from(base)
        } else {
            PathBuf::from(format!("{base}-{n}"))
        }
    };
    (1..)
        .map(nth)
        .find(|path| !path.exists())
        .unwrap_or_else(|| nth(1))
}
