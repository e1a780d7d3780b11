//! `clientele demo`: the main job on data inside this program.

use std::path::PathBuf;

use clientele_data::run_dir::RunDir;
use clientele_features::Config;

use crate::args::{DemoArgs, Format, ModelArgs};
use crate::failure::Failure;
use crate::retail::{self, Settings};

/// CDNOW's transactions of 1997 and 1998; see `demo/README.md`.
const CDNOW: &[u8] = include_bytes!("demo/cdnow.parquet");

/// What a user would write for them.
const CONFIG: &str = include_str!("demo/clientele.toml");

/// Runs it.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    let out: PathBuf = args
        .out
        .clone()
        .unwrap_or_else(|| retail::free_folder("clientele-demo"));
    let config = Config::from_toml(CONFIG, &out.join("input"))?;
    let settings = Settings::new(&config, &ModelArgs::default(), &args.machine)?;
    let dir = RunDir::create(&*out)?;
    dir.write_file("input/cdnow.parquet", CDNOW)?;
    dir.write_file("input/clientele.toml", CONFIG.as_bytes())?;
    eprintln!(
        "CDNOW: 23,570 customers who first bought in early 1997, and every purchase until June 1998"
    );
    retail::fit(&config, settings, dir)?.print(args.machine.format)?;
    if args.machine.format == Format::Text {
        println!(
            "\nOpen the board in a browser. Your own data: `clientele init TABLE...`, then `clientele run`."
        );
    }
    Ok(())
}
