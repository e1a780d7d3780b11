//! `clientele`: customer personas from very large retail databases.

mod args;
mod bench;
mod certs;
mod cluster;
mod demo;
mod doctor;
mod evidence;
mod failure;
mod job;
mod machine;
mod progress;
mod publish;
mod raw;
mod replay;
mod retail;
mod summary;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use cluster::{client, coordinator, worker};

fn main() -> ExitCode {
    // Results go to standard output; whatever is logged goes to standard error, warnings unless more is asked for.
    let filter = EnvFilter::try_from_env("CLIENTELE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("clientele=info,warn"));
    let command = Cli::parse().command;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Who keeps the log of a server wants to know when; who waits for a command does not.
    match command {
        Command::Coordinator(_) | Command::Worker(_) => log.init(),
        _ => log.without_time().init(),
    }
    let done = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => retail::run(&args),
        Command::Init(args) => retail::init(&args),
        Command::Features(args) => retail::features(&args),
        Command::Fit(args) => raw::fit(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Coordinator(args) => coordinator::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Submit(args) => client::submit(&args),
        Command::Status(args) => client::show_status(&args),
        Command::Watch(args) => client::watch(&args),
        Command::Cancel(args) => client::cancel(&args),
        Command::Jobs(args) => client::jobs(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Certs(args) => certs::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
