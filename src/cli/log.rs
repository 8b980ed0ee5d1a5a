//! `alternator-dns log`: logs more or less, or queries, for some time.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};

use super::{Failure, SocketArguments, parse_name, parse_time, print};
use crate::{
    admin::{client::escape_controls, log_level as level, log_queries as queries},
    server::QueryFilter,
    telemetry::LogFilter,
    types::ZoneName,
};

/// What about the log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Log more or less for some time; then the running server returns to the level of its start
    Level(LevelArguments),
    /// Log queries and how they were answered for some time, at most 200 in a second
    Queries(QueriesArguments),
}

/// Flags of `log queries`.
#[derive(Debug, Args)]
pub struct QueriesArguments {
    /// Only queries that this zone answers [default: all queries]
    #[arg(long, value_name = "ZONE", value_parser = parse_name)]
    pub zone: Option<ZoneName>,
    /// Only queries of this client [default: of all clients]
    #[arg(long, value_name = "ADDR")]
    pub client: Option<IpAddr>,
    /// For how long: 1s to 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = parse_query_log_time)]
    pub time: Duration,
    /// Log no more queries
    #[arg(long, conflicts_with_all = ["zone", "client", "time"])]
    pub stop: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
}

fn parse_query_log_time(text: &str) -> Result<Duration, String> {
    parse_time(text, queries::TIME_MAX, "from 1s to 1h, such as 1m")
}

/// Flags of `log level`.
#[derive(Debug, Args)]
pub struct LevelArguments {
    /// error, warn, info, debug, trace or a filter as for --log; "default": the level of the start, at once
    #[arg(value_name = "LEVEL")]
    pub level: String,
    /// For how long: 1s to 24h
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = parse_log_time)]
    pub time: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
}

fn parse_log_time(text: &str) -> Result<Duration, String> {
    parse_time(text, level::TIME_MAX, "from 1s to 24h, such as 5m")
}

/// `alternator-dns log`.
///
/// # Errors
/// No server can be reached, it does not know the level, or has no such zone.
pub fn log(command: &LogCommand) -> Result<(), Failure> {
    match command {
        LogCommand::Level(arguments) => log_level(arguments),
        LogCommand::Queries(arguments) => log_queries(arguments),
    }
}

fn log_queries(arguments: &QueriesArguments) -> Result<(), Failure> {
    let filter = QueryFilter { zone: arguments.zone.clone(), client: arguments.client };
    let what = (!arguments.stop).then_some((&filter, arguments.time));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sentence = runtime.block_on(queries::log_queries(&arguments.socket.path(), what))?;
    print(&escape_controls(&sentence))?;
    Ok(())
}

fn log_level(arguments: &LevelArguments) -> Result<(), Failure> {
    // Checked here too, so that bad usage is named as such.
    let wanted = match arguments.level.as_str() {
        "default" => None,
        level => LogFilter::of_command(level).map(|_| Some((level, arguments.time)))?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sentence = runtime.block_on(level::change(&arguments.socket.path(), wanted))?;
    print(&escape_controls(&sentence))?;
    Ok(())
}
