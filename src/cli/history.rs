//! `alternator-dns history`: what changed when.

use clap::Args;

use super::{Failure, ServerArguments, parse_name, print};
use crate::{admin::client::escape_controls, types::ZoneName};

/// Flags of `history`.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// The changes of this zone and its nodes [default: the configurations that were applied or refused]
    #[arg(value_name = "ZONE", value_parser = parse_name)]
    pub zone: Option<ZoneName>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArguments,
    /// Print the document of /api/history
    #[arg(long)]
    pub json: bool,
}

/// `alternator-dns history`.
///
/// # Errors
/// No server can be reached, or it has no such zone.
pub fn history(arguments: &HistoryArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let zone = arguments.zone.as_ref().map(ToString::to_string);
    let mut parameters = vec![("format", if arguments.json { "json" } else { "text" })];
    parameters.extend(zone.as_deref().map(|zone| ("zone", zone)));
    let text = runtime.block_on(arguments.server.address().read("/api/history", &parameters))?;
    print(escape_controls(text.trim_end()).as_str())?;
    Ok(())
}
