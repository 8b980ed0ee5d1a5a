//! Where a name stands: a zone, below one, forwarded or refused.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Now, Request,
    dns::{ClientExplanation, ClientView, DnsAnswer, NameClients, RequestedType, ask},
    zone::ZoneExplanation,
};
use crate::{
    admin::{AdminState, api::ZoneView},
    config::Config,
    table::{Position, TableEntry, ZoneTable},
    types::ZoneName,
};

/// How alike two names must be for one to be suggested in place of the other.
const SIMILARITY_MIN: f64 = 0.9;

#[derive(Serialize)]
pub(super) struct NameExplanation {
    pub(super) name: String,
    pub(super) place: Place,
    /// The zone whose nodes are answered for the name.
    pub(super) zone: Option<ZoneExplanation>,
    /// The views of that zone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) views: Vec<ZoneView>,
    /// The upstreams of a name that is in no zone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) upstreams: Vec<String>,
    pub(super) client: Option<ClientExplanation>,
    /// What the client gets, or one that may ask.
    pub(super) dns: Vec<DnsAnswer>,
}

/// What a name is here.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Place {
    pub(super) kind: PlaceKind,
    /// The zone or domain that it is or lies in.
    pub(super) of: Option<String>,
    /// Where that is defined.
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<usize>,
    /// A zone with a name that is almost the same, for a name of no zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) similar: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PlaceKind {
    /// A zone.
    Zone,
    /// Below a zone that answers every name below it like itself.
    Subdomain,
    /// Below a zone; there is no such name.
    BelowZone,
    /// It only has a zone or a name server below it.
    EmptyNonTerminal,
    /// A name server of this server.
    NameServer,
    /// A domain without nodes.
    Domain,
    /// Below such a domain; there is no such name.
    BelowDomain,
    /// In no zone; questions of some clients are forwarded.
    Forwarded,
    /// In no zone.
    Refused,
}

impl NameExplanation {
    pub(super) fn of(admin: &AdminState, name: &ZoneName, request: &Request, now: Now) -> Self {
        let table = admin.table.snapshot();
        let config = admin.config.load().config.clone();
        let place = Place::of(&table, &config, name);
        let row = match table.find(name.wire()) {
            Some((TableEntry::Zone(row), _)) if place.kind.has_nodes() => Some(row),
            _ => None,
        };
        let zone = row.map(|row| ZoneExplanation::of(&row.entry, &config, &admin.process.node_requests, now));
        let views = row.and_then(|row| table.views(row.id));
        let view_of = |client| views.map(|views| ClientView::of(views, client));
        let clients = NameClients::of(&table, name, config.forward.as_ref());
        let asks = request.client.unwrap_or_else(|| clients.example());
        let types = request.query_type.map_or_else(|| RequestedType::ADDRESSES.to_vec(), |one| vec![one]);
        let limit = table.server().limiter.as_ref().map(|limiter| limiter.limit());
        let upstreams = config.forward.iter().filter(|_| place.kind == PlaceKind::Forwarded);
        Self {
            name: name.to_string(),
            upstreams: upstreams.flat_map(|forward| &forward.upstreams).map(ToString::to_string).collect(),
            client: request.client.map(|client| ClientExplanation {
                view: view_of(client),
                ..ClientExplanation::of(client, &clients, limit)
            }),
            views: row.map(|row| ZoneView::all(&table, row.id)).unwrap_or_default(),
            dns: types.into_iter().map(|one| ask(&table, name, one, asks)).collect(),
            place,
            zone,
        }
    }
}

impl PlaceKind {
    /// A zone's nodes are answered for the name.
    const fn has_nodes(self) -> bool {
        matches!(self, Self::Zone | Self::Subdomain)
    }
}

impl Place {
    pub(super) fn of(table: &ZoneTable, config: &Config, name: &ZoneName) -> Self {
        let Some((entry, position)) = table.find(name.wire()) else {
            let kind = if config.forward.is_some() { PlaceKind::Forwarded } else { PlaceKind::Refused };
            return Self { kind, of: None, file: None, line: None, similar: similar(config, name) };
        };
        let (of, is_zone, subdomains) = match entry {
            TableEntry::Zone(row) => (row.entry.name(), true, row.entry.answers().settings.subdomains),
            TableEntry::Domain(domain) => (domain.name(), false, false),
        };
        let kind = match (position, is_zone) {
            (Position::Apex, true) => PlaceKind::Zone,
            (Position::Apex, false) => PlaceKind::Domain,
            (Position::NameServer(_), _) => PlaceKind::NameServer,
            (Position::EmptyNonTerminal | Position::BelowApex, _) if subdomains => PlaceKind::Subdomain,
            (Position::EmptyNonTerminal, _) => PlaceKind::EmptyNonTerminal,
            (Position::BelowApex, true) => PlaceKind::BelowZone,
            (Position::BelowApex, false) => PlaceKind::BelowDomain,
        };
        let (file, line) = config.place_of(of).map(|(file, line)| (file.to_owned(), line)).unzip();
        Self { kind, of: Some(of.to_string()), file, line, similar: None }
    }

    /// `file:line` of the zone.
    pub(super) fn defined(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{}:{line}", file.display()),
            _ => "the file".to_owned(),
        }
    }
}

/// The zone whose name is most like this one.
fn similar(config: &Config, name: &ZoneName) -> Option<String> {
    let name = name.to_string();
    let scored = config.zones.keys().map(|zone| {
        let zone = zone.to_string();
        (strsim::jaro_winkler(&name, &zone), zone)
    });
    let (score, zone) = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (score >= SIMILARITY_MIN).then_some(zone)
}
