//! The command `alternator-dns`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use alternator_dns::{
    cli::{self, Arguments, Command},
    demo, telemetry,
};
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => cli::run(&arguments),
        Command::Check(arguments) => cli::check(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Reload(arguments) => cli::reload(&arguments),
        Command::Plan(arguments) => cli::plan(&arguments),
        Command::Explain(arguments) => cli::explain(&arguments),
        Command::History(arguments) => cli::history(&arguments),
        Command::Status(arguments) => cli::status(&arguments),
        Command::Drain(arguments) => cli::drain(&arguments),
        Command::Undrain(arguments) => cli::undrain(&arguments),
        Command::Flush(arguments) => cli::flush(&arguments),
        Command::Log(command) => cli::log(&command),
        Command::Config(command) => cli::config(&command),
        Command::Schema => cli::schema(),
        Command::Completions(arguments) => cli::completions(&arguments),
    };
    match outcome {
        Ok(()) => {
            telemetry::flush();
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(),
    }
}
