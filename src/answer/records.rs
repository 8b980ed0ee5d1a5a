//! The records that a [`Resolution`] becomes in a reply.

use std::net::IpAddr;

use hickory_server::proto::{
    ProtoError,
    rr::{
        DNSClass, Name, RData,
        rdata::{A, AAAA, NS, SOA, TXT},
    },
};

use super::{
    render::{Owner, Reply, ReplyRecord},
    resolve::{Match, Outcome, Resolution},
    worker::Worker,
    zone_match::{Family, ZoneMatch},
};
use crate::{
    table::{NAME_SERVER_TTL, RESPONSIBLE, SOA_EXPIRE, SOA_REFRESH, SOA_RETRY},
    types::{AnswerCount, ZoneName},
};

impl Reply<'_> {
    /// Fills in a resolution. `worker` chooses among the zone's nodes.
    ///
    /// # Errors
    /// When a name cannot be written, which no resolution is known to cause.
    pub(super) fn fill(&mut self, resolution: &Resolution<'_>, worker: &mut Worker) -> Result<(), ProtoError> {
        self.set_rcode(resolution.rcode());
        self.set_authoritative(resolution.is_authoritative());
        self.set_extended_error(resolution.extended_error);
        match (&resolution.matched, &resolution.outcome) {
            (Some(matched), outcome) => {
                self.compress_to(matched.apex());
                self.fill_match(matched, outcome, worker)?;
            }
            (None, Outcome::Text(text)) => self.fill_text(text),
            (None, _) => {}
        }
        Ok(())
    }

    fn fill_match(
        &mut self,
        matched: &Match<'_>,
        outcome: &Outcome<'_>,
        worker: &mut Worker,
    ) -> Result<(), ProtoError> {
        match outcome {
            Outcome::Nodes { family, count } => {
                // A domain has no nodes.
                if let Match::Zone(zone) = matched {
                    self.fill_nodes(zone, *family, *count, worker);
                }
            }
            Outcome::NameServerAddresses { family, addresses } => {
                let addresses = addresses.iter().filter(|address| family.has(address));
                self.answer(NAME_SERVER_TTL, addresses.map(|address| address_data(*address)));
            }
            Outcome::Soa => self.answers = vec![self.soa(matched)?],
            Outcome::NameServers { glue } => self.fill_name_servers(matched, glue)?,
            Outcome::NoData | Outcome::NxDomain => self.authorities = vec![self.soa(matched)?],
            Outcome::NotReady | Outcome::Forward | Outcome::Refused | Outcome::Text(_) => {}
        }
        Ok(())
    }

    /// As many nodes as the zone's key `answers` asks for, if they fit. With `all`, a reply that lacks a node is truncated: a
    /// client that cannot ask over TCP has what fits.
    fn fill_nodes(&mut self, zone: &ZoneMatch<'_>, family: Family, count: AnswerCount, worker: &mut Worker) {
        let answers = zone.source(family);
        let (total, data_octets) = match family {
            Family::V4 => (answers.v4.len(), 4),
            Family::V6 => (answers.v6.len(), 16),
        };
        let capacity = self.capacity(data_octets);
        let take = match count {
            AnswerCount::AtMost(count) => capacity.min(usize::from(count.get())),
            AnswerCount::All if total <= capacity => total,
            AnswerCount::All => {
                self.set_truncated();
                capacity
            }
        };
        let ttl = zone.answers.address_ttl();
        let id = zone.view_with(family).map_or(zone.entry, |view| view.entry).id();
        match family {
            Family::V4 => self.answer(ttl, worker.pick_from(id, &answers.v4, take).iter().map(|&v4| RData::A(A(v4)))),
            Family::V6 => {
                self.answer(ttl, worker.pick_from(id, &answers.v6, take).iter().map(|&v6| RData::AAAA(AAAA(v6))));
            }
        }
    }

    /// Answers with this data of the question's name.
    fn answer(&mut self, ttl: u32, data: impl Iterator<Item = RData>) {
        let owner = self.question().owner();
        self.answers = data.map(|data| ReplyRecord::new(owner.clone(), ttl, data)).collect();
    }

    /// Version or identifier of this server: class CHAOS, and not to be cached.
    fn fill_text(&mut self, text: &str) {
        let owner = self.question().owner();
        let data = RData::TXT(TXT::new(vec![text.to_owned()]));
        self.answers = vec![ReplyRecord { owner, class: DNSClass::CH, ttl: 0, data }];
    }

    fn soa(&self, matched: &Match<'_>) -> Result<ReplyRecord, ProtoError> {
        let apex = matched.apex();
        let primary = matched.name_servers().first().unwrap_or(apex);
        let responsible = match apex.child(RESPONSIBLE) {
            Some(name) => self.question().spell(&name, apex)?,
            None => Name::root(),
        };
        let soa = SOA::new(
            self.question().spell(primary, apex)?,
            responsible,
            matched.serial(),
            SOA_REFRESH,
            SOA_RETRY,
            SOA_EXPIRE,
            matched.negative_ttl(),
        );
        Ok(ReplyRecord::new(self.question().zone_owner(), matched.negative_ttl(), RData::SOA(soa)))
    }

    fn fill_name_servers(&mut self, matched: &Match<'_>, glue: &[(ZoneName, &[IpAddr])]) -> Result<(), ProtoError> {
        let apex = matched.apex();
        let owner = self.question().owner();
        for (name, _) in matched.name_servers().iter() {
            let data = RData::NS(NS(self.question().spell(name, apex)?));
            self.answers.push(ReplyRecord::new(owner.clone(), NAME_SERVER_TTL, data));
        }
        for (name, addresses) in glue {
            let owner = Owner::Name(Box::new(self.question().spell(name, apex)?));
            let records = addresses.iter().map(|a| ReplyRecord::new(owner.clone(), NAME_SERVER_TTL, address_data(*a)));
            self.additionals.extend(records);
        }
        Ok(())
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}
