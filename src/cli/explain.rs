//! `alternator-dns explain`: why a name has its answer, and why a node is, or is not, in it.

use std::net::IpAddr;

use clap::Args;

use super::{Failure, ServerArguments, print};
use crate::admin::{
    client::escape_controls,
    explain::{ExplainedSubject, RequestedType},
};

/// Flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The name of a zone, or any other name that clients ask for; or the address of a node
    #[arg(value_name = "NAME", value_parser = parse_subject)]
    pub name: ExplainedSubject,
    /// The type of the records that are asked for [default: A and AAAA]
    #[arg(value_name = "TYPE", value_parser = parse_type)]
    pub query_type: Option<RequestedType>,
    /// Also say whether this client may ask, and answer as it would be answered
    #[arg(long, value_name = "ADDR")]
    pub client: Option<IpAddr>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArguments,
    /// Print the document of /api/explain
    #[arg(long)]
    pub json: bool,
}

fn parse_subject(text: &str) -> Result<ExplainedSubject, String> {
    text.parse().map_err(|error| format!("the name {error}"))
}

fn parse_type(text: &str) -> Result<RequestedType, String> {
    text.parse::<RequestedType>().map_err(|error| error.to_string())
}

/// `alternator-dns explain`.
///
/// # Errors
/// No server can be reached.
pub fn explain(arguments: &ExplainArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let name = arguments.name.to_string();
    let query_type = arguments.query_type.map(|query_type| query_type.to_string());
    let client = arguments.client.map(|client| client.to_string());
    let mut parameters = vec![("format", if arguments.json { "json" } else { "text" }), ("name", name.as_str())];
    parameters.extend(query_type.as_deref().map(|query_type| ("type", query_type)));
    parameters.extend(client.as_deref().map(|client| ("client", client)));
    let text = runtime.block_on(arguments.server.address().read("/api/explain", &parameters))?;
    print(escape_controls(text.trim_end()).as_str())?;
    Ok(())
}
