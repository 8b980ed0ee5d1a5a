//! `alternator-dns drain` and `undrain`: takes a node out of the answers for some time.

use std::{net::IpAddr, time::Duration};

use clap::Args;

use super::{Failure, SocketArguments, parse_name, parse_time, print};
use crate::{
    admin::{client::ServerAddress, drain as request},
    table::DRAIN_TIME_MAX,
    types::ZoneName,
};

/// Flags of `drain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// The address of the node, as its cluster lists it or as `map` translates it
    #[arg(value_name = "NODE", requires = "time")]
    pub node: Option<IpAddr>,
    /// For how long: 1s to 7d
    #[arg(long = "for", value_name = "DURATION", requires = "node", value_parser = parse_drain_time)]
    pub time: Option<Duration>,
    /// Only in this zone [default: in all zones]
    #[arg(long, value_name = "ZONE", requires = "node", value_parser = parse_name)]
    pub zone: Option<ZoneName>,
    /// List the drains in force, as without a node
    #[arg(long, conflicts_with_all = ["node", "time", "zone"])]
    pub list: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
}

/// Flags of `undrain`.
#[derive(Debug, Args)]
pub struct UndrainArguments {
    /// The address of the node, as its cluster lists it or as `map` translates it
    #[arg(value_name = "NODE")]
    pub node: IpAddr,
    /// Only in this zone [default: in all zones]
    #[arg(long, value_name = "ZONE", value_parser = parse_name)]
    pub zone: Option<ZoneName>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
}

fn parse_drain_time(text: &str) -> Result<Duration, String> {
    parse_time(text, DRAIN_TIME_MAX, "from 1s to 7d, such as 30m")
}

/// `alternator-dns drain`.
///
/// # Errors
/// No server can be reached, it has no such zone, or too many drains are in force.
pub fn drain(arguments: &DrainArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = arguments.socket.path();
    let text = match (arguments.node, arguments.time) {
        (Some(node), Some(time)) => runtime.block_on(request::drain(&path, node, arguments.zone.as_ref(), time))?,
        _ => runtime.block_on(ServerAddress::Socket(path).read("/drain", &[]))?,
    };
    print(text.trim_end())?;
    Ok(())
}

/// `alternator-dns undrain`.
///
/// # Errors
/// No server can be reached, or the node is not drained there.
pub fn undrain(arguments: &UndrainArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = arguments.socket.path();
    let text = runtime.block_on(request::undrain(&path, arguments.node, arguments.zone.as_ref()))?;
    print(&text)?;
    Ok(())
}
