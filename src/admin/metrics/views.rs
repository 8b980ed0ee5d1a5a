//! Views of zones.

use std::fmt;

use super::{Families, Scrape};
use crate::{
    metrics::{QueryType, Rcode, Transport},
    table::ZoneEntry,
    types::ZoneState,
};

impl Scrape {
    /// What the views of zones are, and how often they are answered.
    pub(super) fn views(&self, families: &mut Families<'_>) -> fmt::Result {
        let table = self.admin.table.snapshot();
        let views = || {
            self.zones.iter().flat_map(|(name, zone)| {
                table.each_view(zone.id()).map(move |view| {
                    let entry = &view.row.entry;
                    (name.as_str(), entry.name().view_network().unwrap_or_default(), entry)
                })
            })
        };
        let states = views().flat_map(|(zone, view, entry)| {
            let current = entry.state();
            ZoneState::ALL.into_iter().map(move |state| {
                ([("zone", zone), ("view", view), ("state", state.word())], u64::from(state == current))
            })
        });
        let help = "1 for the state that the view of a zone is in, 0 for the others; waiting or unanswered: its clients get the addresses of the zone.";
        families.gauges("view_state", help, None, states)?;
        let queries =
            views().map(|(zone, view, entry)| ([("zone", zone), ("view", view)], self.queries_of_view(entry)));
        let help = "Queries answered with addresses of the view of a zone; the zone's queries count them too.";
        families.counters("view_queries", help, queries)
    }

    fn queries_of_view(&self, entry: &ZoneEntry) -> u64 {
        let count =
            |query_type, transport| entry.queries(&self.admin.process.workers, query_type, Rcode::NoError, transport);
        let by_type =
            QueryType::ALL.iter().flat_map(|query_type| Transport::ALL.iter().map(move |at| (*query_type, *at)));
        by_type.map(|(query_type, transport)| count(query_type, transport)).sum()
    }
}
