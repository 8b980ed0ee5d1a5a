//! Transfers of zones to secondaries.

use std::{fmt, time::Instant};

use prometheus_client::registry::Unit;

use super::{Families, Scrape};
use crate::{
    metrics::{NotifyResult, TransferRefusal, TransferType},
    types::ZoneName,
};

impl Scrape {
    /// What secondaries were given, and what they have.
    pub(super) fn transfers(&self, families: &mut Families<'_>) -> fmt::Result {
        let process = &self.admin.process;
        let given =
            TransferType::ALL.iter().map(|&kind| ([("type", kind.word())], process.transfers.given.of(kind).value()));
        families.counters("transfers", "Answers to secondaries: whole zones, and serials.", given)?;
        let refused = TransferRefusal::ALL
            .iter()
            .map(|&reason| ([("reason", reason.word())], process.transfers.refused.of(reason).value()));
        families.counters("transfer_refusals", "Messages about transfers that were refused.", refused)?;
        let notifies = NotifyResult::ALL
            .iter()
            .map(|&result| ([("result", result.word())], process.transfers.notifies.of(result).value()));
        families.counters("notifies", "NOTIFY messages: all that were sent, and what became of them.", notifies)?;
        let help = "Datagrams in the place of an answer to NOTIFY: forged, late, or not signed as they must be.";
        families.counter("notify_replies_ignored", help, process.transfers.replies_ignored.value())?;
        let transfers = &self.admin.transfers;
        let catalog = transfers.catalog();
        let serial = catalog.iter().map(|(name, serial)| ([("zone", name.to_string())], *serial));
        families.gauges("catalog_serial", "The serial of the catalog zone of [transfer].", None, serial)?;
        self.secondaries(families, catalog.map(|(name, _)| name))
    }

    /// What the secondaries have of the zones and of the catalog zone.
    fn secondaries(&self, families: &mut Families<'_>, catalog: Option<ZoneName>) -> fmt::Result {
        let now = Instant::now();
        let mut known = Vec::new();
        let catalog = catalog.map(|name| (name.to_string(), name));
        let zones = self.zones.iter().map(|(text, entry)| (text, entry.name()));
        for (name, zone) in zones.chain(catalog.iter().map(|(text, name)| (text, name))) {
            let secondaries = self.admin.transfers.secondaries(zone, now);
            known.extend(secondaries.into_iter().map(|secondary| {
                let labels = [("zone", name.clone()), ("secondary", secondary.address.to_string())];
                (labels, secondary.state)
            }));
        }
        let serials = known.iter().filter_map(|(labels, state)| Some((labels.clone(), state.serial?)));
        families.gauges("secondary_serial", "The serial of the zone that a secondary fetched last.", None, serials)?;
        let lags = known.iter().map(|(labels, state)| (labels.clone(), state.lag.as_secs_f64()));
        let help = "For how long a secondary has lacked a change of the zone of which it has not asked for the serial.";
        families.gauges("secondary_lag", help, Some(Unit::Seconds), lags)?;
        let times = known.iter().map(|(labels, state)| (labels.clone(), state.unconfirmed.as_secs_f64()));
        let help = "For how long a secondary has asked for serials of the zone and not fetched the changes: it has them from \
                    another primary, or cannot fetch.";
        families.gauges("secondary_unconfirmed", help, Some(Unit::Seconds), times)
    }
}
