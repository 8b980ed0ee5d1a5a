//! `/api/explain`: where a name or a node stands, from the file to what DNS answers. As JSON, or as text for the command
//! `explain`.

mod address;
mod dns;
mod name;
mod text;
mod zone;

use std::{
    net::IpAddr,
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::{Deserialize, Serialize};

pub use self::dns::{QueryTypeError, RequestedType};
use self::{address::AddressExplanation, name::NameExplanation};
use super::{
    AdminState, Pages,
    control::RunningServer,
    history::{Format, refusal, respond},
};
use crate::types::{NameError, ZoneName, canonical};

/// For so long nodes that have left are shown.
const LEFT_AGE_MAX: Duration = Duration::from_secs(3600);

/// What is explained.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExplainedSubject {
    /// A name, as clients ask for it.
    Name(ZoneName),
    /// The address of a node.
    Address(IpAddr),
}

impl FromStr for ExplainedSubject {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(canonical(address))),
            Err(_) => Ok(Self::Name(ZoneName::parse(text)?)),
        }
    }
}

impl std::fmt::Display for ExplainedSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    name: String,
    /// The type of the records; A and AAAA, if it is left out.
    #[serde(rename = "type")]
    query_type: Option<String>,
    /// May this client ask?
    client: Option<IpAddr>,
    /// JSON, if it is left out.
    format: Option<Format>,
}

/// A question about a name or an address.
#[derive(Clone, Debug)]
struct Request {
    subject: ExplainedSubject,
    query_type: Option<RequestedType>,
    client: Option<IpAddr>,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
struct Now {
    instant: Instant,
    day: SystemTime,
}

/// The handler.
pub(super) async fn explain(State(pages): State<Pages>, Query(parameters): Query<Parameters>) -> Response {
    let Parameters { name, query_type, client, format } = parameters;
    let subject = match name.parse() {
        Ok(subject) => subject,
        Err(error) => return refusal(&format!("the name {error}")),
    };
    let query_type = match query_type.as_deref().map(RequestedType::from_str).transpose() {
        Ok(query_type) => query_type,
        Err(error) => return refusal(&error.to_string()),
    };
    let request = Request { subject, query_type, client: client.map(canonical) };
    let document = pages.render(move |admin| {
        let now = Now { instant: Instant::now(), day: SystemTime::now() };
        Explanation::of(admin, &request, now)
    });
    let document = document.await;
    respond(format.unwrap_or(Format::Json), &document, || document.text())
}

#[derive(Serialize)]
struct Explanation {
    server: RunningServer,
    #[serde(flatten)]
    subject: SubjectExplanation,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SubjectExplanation {
    Name(Box<NameExplanation>),
    Address(AddressExplanation),
}

impl Explanation {
    fn of(admin: &AdminState, request: &Request, now: Now) -> Self {
        let subject = match &request.subject {
            ExplainedSubject::Name(name) => {
                SubjectExplanation::Name(Box::new(NameExplanation::of(admin, name, request, now)))
            }
            ExplainedSubject::Address(address) => {
                SubjectExplanation::Address(AddressExplanation::of(admin, *address, now))
            }
        };
        Self { server: RunningServer::this(&admin.config.load().path), subject }
    }
}

#[cfg(test)]
mod tests;
