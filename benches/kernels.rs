//! Runs the benches in `benches/kernels`, a package of its own: criterion beside the other crates would have DataFusion built twice.
//!
//! `cargo bench --bench kernels -- --quick`; what follows `--` is criterion's.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/kernels/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut bench = Command::new(cargo);
    bench
        .args(["bench", "--bench", "kernels", "--manifest-path"])
        .arg(manifest)
        .arg("--");
    // One target folder for both: this program is in its release/deps.
    if let Some(target) = std::env::current_exe()
        .ok()
        .as_deref()
        .and_then(|this| this.ancestors().nth(3))
    {
        bench.env("CARGO_TARGET_DIR", target);
    }
    // Cargo adds its own `--bench` again.
    bench.args(
        std::env::args_os()
            .skip(1)
            .filter(|argument| argument != "--bench"),
    );
    match bench.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cargo cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
