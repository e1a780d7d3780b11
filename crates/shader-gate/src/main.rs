//! Says whether a change makes the shaders worse on hardware that is not there.
//!
//! Every shape of the shaders that passes run is compiled with Mesa's RADV for several generations of AMD GPUs, as wgpu would compile it,
//! and what the compiler says is compared with a committed baseline of that Mesa and with the targets.
//!
//! `shader-gate [--write-baseline] [--baselines FOLDER] [--only N_FEATURES,...] [--plant-regression] [--assembly FOLDER]`
//!
//! Ends with 0 when nothing is worse, 9 when something is, 2 when it cannot tell. Without RADV it says so and ends with 0, or with 2 when
//! `CLIENTELE_REQUIRE_GPU=1`.

mod compare;
mod isa;
mod measure;
mod spirv;
mod vulkan;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clientele_gpu::shaders::Flaw;
use compare::Failure;
use measure::{Kernel, Row};
use vulkan::Compiler;

/// What a family is called here, and by one Mesa or another.
const FAMILIES: [(&str, &[&str]); 4] = [
    ("polaris10", &["polaris10"]),
    ("vega10", &["vega10"]),
    ("navi21", &["navi21"]),
    ("gfx11", &["gfx1100", "navi31"]),
];

/// Where distributions put the description of RADV.
const DRIVERS: [&str; 4] = [
    "/usr/share/vulkan/icd.d/radeon_icd.x86_64.json",
    "/usr/share/vulkan/icd.d/radeon_icd.json",
    "/usr/share/vulkan/icd.d/radeon_icd.aarch64.json",
    "/etc/vulkan/icd.d/radeon_icd.x86_64.json",
];

/// Failures shown one by one; the rest is a number.
const N_SHOWN: usize = 40;

struct Arguments {
    writes_baseline: bool,
    plants_regression: bool,
    baselines: PathBuf,
    /// Only shapes with so many features.
    only: Option<Vec<usize>>,
    /// Where each kernel's instructions are written.
    assembly: Option<PathBuf>,
    /// Set by this program itself: a process compiles for one family, because the driver reads the environment once.
    family: Option<String>,
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|arguments| match &arguments.family {
        Some(family) => print_family(family, &arguments),
        None => gate(&arguments),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        writes_baseline: false,
        plants_regression: false,
        baselines: Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline"),
        only: None,
        assembly: None,
        family: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--write-baseline" => arguments.writes_baseline = true,
            "--plant-regression" => arguments.plants_regression = true,
            "--baselines" => arguments.baselines = value()?.into(),
            "--only" => {
                let numbers: Result<_, _> = value()?.split(',').map(str::parse).collect();
                arguments.only = Some(numbers.map_err(|error| format!("--only: {error}"))?);
            }
            "--assembly" => arguments.assembly = Some(value()?.into()),
            "--family" => arguments.family = Some(value()?),
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    Ok(arguments)
}

/// The child's part: the driver, then a row a shape.
fn print_family(family: &str, arguments: &Arguments) -> Result<ExitCode, String> {
    let compiler = Compiler::open()?;
    println!("{}", compiler.driver);
    let flaw = arguments.plants_regression.then_some(Flaw::DifferenceForm);
    let kernels = Kernel::shipped().filter(|kernel| is_wanted(arguments, kernel.n_features()));
    let assembly = arguments.assembly.as_deref();
    for row in measure::all(&compiler, family, kernels, flaw, assembly)? {
        println!("{row}");
    }
    Ok(ExitCode::SUCCESS)
}

fn gate(arguments: &Arguments) -> Result<ExitCode, String> {
    let Some(driver) = DRIVERS.into_iter().find(|path| Path::new(path).exists()) else {
        let missing = "RADV is not installed (Debian: mesa-vulkan-drivers)";
        if std::env::var("CLIENTELE_REQUIRE_GPU").is_ok_and(|v| v == "1") {
            return Err(format!("CLIENTELE_REQUIRE_GPU=1, but {missing}"));
        }
        println!("skipped: {missing}");
        return Ok(ExitCode::SUCCESS);
    };
    let (mesa, rows) = measure_families(driver, arguments)?;
    let path = arguments.baselines.join(format!("{mesa}.tsv"));
    if arguments.writes_baseline {
        write(&path, &rows)?;
        println!("{} rows written to {}", rows.len(), path.display());
        return Ok(ExitCode::SUCCESS);
    }
    print_summary(&mesa, &rows);
    let mut failures = compare::with_targets(&rows);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let mut baseline = parse(text.lines().skip(1))?;
            baseline.retain(|row| row.n_features().is_some_and(|n| is_wanted(arguments, n)));
            failures.extend(compare::with_baseline(&rows, &baseline));
        }
        Err(error) => println!(
            "no baseline to compare with, only targets: {}: {error}",
            path.display()
        ),
    }
    Ok(verdict(&rows, &failures))
}

fn is_wanted(arguments: &Arguments, n_features: usize) -> bool {
    arguments
        .only
        .as_ref()
        .is_none_or(|only| only.contains(&n_features))
}

/// The Mesa there is, as baselines are called, and the rows of all families.
fn measure_families(driver: &str, arguments: &Arguments) -> Result<(String, Vec<Row>), String> {
    let measured: Vec<_> = std::thread::scope(|scope| {
        let start = |(family, names): (&'static str, &'static [&str])| {
            scope.spawn(move || measure_family(driver, family, names, arguments))
        };
        let started: Vec<_> = FAMILIES.into_iter().map(start).collect();
        started
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    let mut all = Vec::new();
    let mut mesa = String::new();
    for output in measured {
        let output = output.map_err(|_| "a family could not be measured")??;
        let mut lines = output.lines();
        mesa = baseline_name(lines.next().unwrap_or(""))?;
        all.extend(parse(lines)?);
    }
    Ok((mesa, all))
}

/// What the child says, under the first of the names that the driver knows.
fn measure_family(
    driver: &str,
    family: &str,
    names: &[&str],
    arguments: &Arguments,
) -> Result<String, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut said = String::new();
    for name in names {
        let mut command = Command::new(&own);
        command
            .args(["--family", family])
            .args(arguments.plants_regression.then_some("--plant-regression"))
            .env("RADV_FORCE_FAMILY", name)
            .env("VK_DRIVER_FILES", driver)
            .env("VK_ICD_FILENAMES", driver);
        if let Some(folder) = &arguments.assembly {
            command.arg("--assembly").arg(folder);
        }
        if let Some(only) = &arguments.only {
            let only: Vec<String> = only.iter().map(usize::to_string).collect();
            command.args(["--only", &only.join(",")]);
        }
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(|error| error.to_string());
        }
        said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    Err(format!("{family}: {said}"))
}

/// `Mesa 22.3.6` is compared with `mesa-22.3`.
fn baseline_name(driver: &str) -> Result<String, String> {
    let version = driver
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = version.unwrap_or("").split('.');
    match (driver.starts_with("Mesa"), parts.next(), parts.next()) {
        (true, Some(major), Some(minor)) => Ok(format!("mesa-{major}.{minor}")),
        _ => Err(format!("`{driver}` is no version of Mesa")),
    }
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Row>, String> {
    lines
        .filter(|line| !line.is_empty())
        .map(Row::parse)
        .collect()
}

fn write(path: &Path, rows: &[Row]) -> Result<(), String> {
    let lines: Vec<String> = rows.iter().map(Row::to_string).collect();
    let text = format!("{}\n{}\n", Row::COLUMNS, lines.join("\n"));
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A few shapes that say how things stand.
fn print_summary(mesa: &str, rows: &[Row]) {
    println!(
        "{mesa}: vector instructions a term (row x centroid x feature) and a sum, registers, waves, spills, scratch"
    );
    for row in rows {
        let n_features = row.n_features().unwrap_or(0);
        if [8, 16, 32, 64, 128, 1_000].contains(&n_features) && !row.shape.ends_with("labels") {
            println!(
                "{:10} {:15} {:6.3} {:5.2} {:4} {:3} {:3} {:3}",
                row.family,
                row.shape,
                row.vector_a_term,
                row.vector_a_sum,
                row.vgprs,
                row.waves,
                row.spills,
                row.scratch_bytes
            );
        }
    }
}

fn verdict(rows: &[Row], failures: &[Failure]) -> ExitCode {
    for failure in failures.iter().take(N_SHOWN) {
        println!(
            "worse: {:10} {:14} {}",
            failure.family,
            failure.shape,
            failure.reasons.join("; ")
        );
    }
    if failures.len() > N_SHOWN {
        println!("... and {} more", failures.len() - N_SHOWN);
    }
    println!("{} rows, {} failures", rows.len(), failures.len());
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!(
            "if it is meant to be so: cargo run --release -p clientele-shader-gate -- --write-baseline"
        );
        ExitCode::from(9)
    }
}
