//! `clientele bench`: what this machine gives, and how near to it a pass comes.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clientele_bench::device::{self, Choice, Wanted};
use clientele_bench::{BenchError, Data, Machine, Point, Report, Settings};
use clientele_data::ErrorKind;
use clientele_kmeans::cpu::Kernel;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{BenchArgs, BenchBackendArg, DataArg, Format, KernelArg};
use crate::failure::Failure;
use crate::machine::{default_memory_bytes, n_cores};
use crate::summary::{print_json, print_lines};

/// Measures, or compares what was measured.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    match args.compare.as_deref() {
        Some([a, b]) => compare(a, b, args.format),
        _ => measure(args),
    }
}

fn measure(args: &BenchArgs) -> Result<(), Failure> {
    let settings = settings(args).check(default_memory_bytes())?;
    let n_threads = args.threads.unwrap_or_else(n_cores);
    if !(1..=4_096).contains(&n_threads) {
        return Err(Failure::usage(format!(
            "--threads {n_threads} is not between 1 and 4,096"
        )));
    }
    let wanted = wanted(args)?;
    // Before minutes are spent on something that cannot be written.
    let out = args.out.as_deref().map(writable).transpose()?;
    let html = args.html.as_deref().map(writable).transpose()?;

    let pool = device::pool(n_threads)?;
    let devices = device::open(&wanted, &pool)?;
    if !args.controls {
        settings.check_memory(&devices, default_memory_bytes())?;
    }
    let machine = Machine::this(n_cores());
    let report = if args.controls {
        clientele_bench::measure_controls(&devices, machine)?
    } else {
        let progress = Progress::new(settings.n_shapes() * devices.len());
        clientele_bench::run(&settings, &devices, machine, &pool, |point| {
            progress.show(point)
        })?
    };
    if let Some((file, path)) = out {
        let json = serde_json::to_string_pretty(&report).map_err(BenchError::Json)?;
        write(file, path, &(json + "\n"))?;
    }
    if let Some((file, path)) = html {
        write(file, path, &clientele_bench::page(&report)?)?;
    }
    match args.format {
        Format::Json => print_json(&report),
        Format::Text => print_lines(&report.to_text()),
    }
}

fn compare(a: &Path, b: &Path, format: Format) -> Result<(), Failure> {
    let comparison = clientele_bench::compare(&Report::read(a)?, &Report::read(b)?)?;
    match format {
        Format::Json => print_json(&comparison)?,
        Format::Text => {
            print_lines(&comparison.to_text(&a.display().to_string(), &b.display().to_string()))?
        }
    }
    match comparison.differing.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            ErrorKind::Bug,
            format!(
                "the runs found different models at {} of {} shapes, first at {}",
                comparison.differing.len(),
                comparison.n_shapes,
                first.shape
            ),
        )
        .hint("one of the machines computes wrongly: `clientele doctor` tests each; please report what it says")),
    }
}

fn settings(args: &BenchArgs) -> Settings {
    let mut data: Vec<Data> = Vec::new();
    for kind in &args.data {
        let kind = match kind {
            DataArg::Mixture => Data::Mixture,
            DataArg::Skewed => Data::Skewed,
        };
        if !data.contains(&kind) {
            data.push(kind);
        }
    }
    Settings {
        data,
        rows: args.rows.clone(),
        features: args.features.clone(),
        clusters: args.clusters.clone(),
        n_passes: args.passes,
    }
}

fn wanted(args: &BenchArgs) -> Result<Wanted, Failure> {
    let choice = match args.backend {
        BenchBackendArg::Auto => Choice::Auto,
        BenchBackendArg::Cpu => Choice::Cpu,
        BenchBackendArg::Gpu => Choice::Gpu,
        BenchBackendArg::All => Choice::All,
    };
    if choice == Choice::Cpu && args.adapter.is_some() {
        return Err(
            Failure::usage("--adapter names a GPU, and --backend cpu measures none")
                .hint("leave one of the two away"),
        );
    }
    let mut kernels: Vec<Kernel> = Vec::new();
    for kernel in &args.kernel {
        let kernel = match kernel {
            KernelArg::Avx512Vnni => Kernel::Avx512Vnni,
            KernelArg::Avx512 => Kernel::Avx512,
            KernelArg::Avx2 => Kernel::Avx2,
            KernelArg::Neon => Kernel::Neon,
            KernelArg::Scalar => Kernel::Scalar,
        };
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    Ok(Wanted {
        choice,
        kernels,
        adapter: args.adapter.clone(),
    })
}

/// Opens a file for writing and leaves what is in it.
fn writable(path: &Path) -> Result<(File, PathBuf), Failure> {
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path);
    file.map(|file| (file, path.to_owned()))
        .map_err(|error| unwritable(path, &error))
}

fn write(mut file: File, path: PathBuf, text: &str) -> Result<(), Failure> {
    let done = file
        .set_len(0)
        .and_then(|()| file.write_all(text.as_bytes()));
    done.map_err(|error| unwritable(&path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("`{}` cannot be written", path.display()))
        .because(error)
        .hint("give a file in a folder that exists and that you may write to")
}

/// A bar on a terminal, a line a point otherwise; on standard error.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(n_points: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}");
            ProgressBar::new(n_points as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar }
    }

    fn show(&self, point: &Point) {
        let line = format!(
            "{}: {:.2} ms a pass, {}",
            point.shape, point.pass_ms.median, point.device
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.inc(1);
            }
            // Whoever closed standard error does not want to know.
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let kind = match &error {
            BenchError::Gpu(_)
            | BenchError::Zero { .. }
            | BenchError::TooFewRows { .. }
            | BenchError::NoDevice
            | BenchError::NoSuchKernel { .. }
            | BenchError::OtherAlgorithm { .. }
            | BenchError::OtherPasses { .. }
            | BenchError::NothingInCommon { .. } => ErrorKind::Usage,
            BenchError::Unreadable { source, .. } if source.kind() == IoErrorKind::NotFound => {
                ErrorKind::Usage
            }
            BenchError::Unreadable { .. }
            | BenchError::NotARun { .. }
            | BenchError::UnknownDevice { .. }
            | BenchError::OtherSchema { .. } => ErrorKind::Input,
            BenchError::AboveLimit { .. } | BenchError::Memory { .. } => ErrorKind::Limit,
            BenchError::Device { .. } => ErrorKind::Transient,
            _ => ErrorKind::Bug,
        };
        let failure = Self::new(kind, error.to_string()).because_of_sources(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
