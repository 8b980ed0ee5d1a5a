//! A zone as a question meets it: its answers at one moment, and the view of the client.

use std::{net::IpAddr, sync::Arc};

use arc_swap::Guard;

use crate::table::{Answers, Row, ZoneEntry, ZoneTable};

/// A family of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4, type A.
    V4,
    /// IPv6, type AAAA.
    V6,
}

impl Family {
    /// Whether an address is of this family.
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// A zone at one moment.
#[derive(Debug)]
pub struct ZoneMatch<'t> {
    /// Its entry in the table, with its counters.
    pub entry: &'t Arc<ZoneEntry>,
    /// Its current answers.
    pub answers: Guard<Arc<Answers>>,
    /// The view of the client.
    pub view: Option<ViewMatch<'t>>,
}

/// A view at one moment.
#[derive(Debug)]
pub struct ViewMatch<'t> {
    /// Its entry, with its counters.
    pub entry: &'t Arc<ZoneEntry>,
    /// Its current answers.
    pub answers: Guard<Arc<Answers>>,
}

impl<'t> ZoneMatch<'t> {
    pub(super) fn now(table: &'t ZoneTable, row: &'t Row, client: IpAddr) -> Self {
        let view = table.views(row.id).and_then(|views| views.of(client)).map(|view| &view.row.entry);
        let view = view.map(|entry| ViewMatch { entry, answers: entry.answers() });
        Self { entry: &row.entry, answers: row.entry.answers(), view }
    }

    /// The view of the client, if it has addresses of this family; otherwise the client gets those of the zone.
    pub fn view_with(&self, family: Family) -> Option<&ViewMatch<'t>> {
        self.view.as_ref().filter(|view| has_addresses(&view.answers, family))
    }

    /// The answers that the addresses of this family come from.
    pub fn source(&self, family: Family) -> &Answers {
        self.view_with(family).map_or(&self.answers, |view| &view.answers)
    }
}

/// Whether there are addresses of this family.
pub(super) fn has_addresses(answers: &Answers, family: Family) -> bool {
    match family {
        Family::V4 => !answers.v4.is_empty(),
        Family::V6 => !answers.v6.is_empty(),
    }
}
