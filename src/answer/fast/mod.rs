//! The fast path: the common questions from octets to octets, without allocation.
//!
//! It answers names of zones and domains in class IN: addresses, SOA, NS, and, with a prepared SOA, that a type or a name does
//! not exist. Everything else takes the slow path, which gives the same replies: a property test holds both to the same
//! octets, and this directory can be deleted without losing a feature.

mod query;
mod reply;

use std::net::{Ipv4Addr, Ipv6Addr};

use self::{query::PlainQuery, reply::PlainReply};
use super::{
    Client, Responder,
    query::{Parsed, parse},
    render::Reply,
    resolve::{Subject, query_type_label, resolve, subject},
    soa::SoaParts,
    wire::{CLASS_IN, TYPE_A, TYPE_AAAA, TYPE_NS},
    worker::{ClientMatters, NameServerRecords, Worker, ZoneSummary},
};
use crate::{
    metrics::{Rcode, Transport},
    table::{DomainEntry, DomainSettings, Position, Row, TableEntry},
    types::NAME_OCTETS_MAX,
};

/// NS and address records at which the renderer's encoder still compresses every name: it stops after 120.
const NAME_SERVER_RECORDS_MAX: u16 = 100;

impl Responder<'_> {
    /// Answers a common question into `out` and counts it; `false`: the slow path must do both.
    pub(super) fn answer_fast(&self, message: &[u8], client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> bool {
        let Some(query) = PlainQuery::read(message) else { return false };
        let server = self.table.server();
        // The rate limit needs the whole message.
        if server.limiter.is_some() {
            return false;
        }
        let mut buffer = [0; NAME_OCTETS_MAX];
        let Some(name) = query.lower_name(&mut buffer) else { return false };
        let Some((entry, position)) = self.table.find(name) else { return false };
        let reply = PlainReply { query: &query, server, client };
        let rcode = match entry {
            TableEntry::Zone(row) => self.answer_zone((row, position), &reply, worker, out),
            TableEntry::Domain(domain) => answer_domain(domain, position, &reply, out),
        };
        let Some(rcode) = rcode else { return false };
        let query_type = query_type_label(query.query_type);
        match entry {
            TableEntry::Zone(row) => worker.count(row, (query_type, rcode), client.transport, self.counters),
            TableEntry::Domain(_) => {
                worker.count_fast(self.counters);
                self.counters.no_zone.of(query_type, rcode, client.transport).increment();
            }
        }
        true
    }

    /// Answers from a zone. `None`: the slow path must.
    fn answer_zone(
        &self,
        (row, position): (&Row, Position<'_>),
        reply: &PlainReply<'_>,
        worker: &mut Worker,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        let zone = worker.summary(row);
        if zone.client_matters == ClientMatters::ForAccess
            && !row.entry.answers().settings.clients.permit(reply.client.address)
        {
            return None;
        }
        let query_type = reply.query.query_type;
        let subject = subject(query_type, position, zone.subdomains);
        let rcode = rcode(subject);
        let is_written = match subject {
            Subject::Transfer => false,
            Subject::Soa => reply.write_soa(worker.soa(row.id), out),
            Subject::NameServers => self.write_name_servers(row, reply, worker, out),
            Subject::Records => match query_type {
                TYPE_A | TYPE_AAAA
                    if zone.client_matters != ClientMatters::No
                        && let Some(view) = self.view(row, reply.client)
                        && let Some(is_written) = self.write_view((view, &zone), reply, worker, out) =>
                {
                    is_written
                }
                // SERVFAIL and its reason.
                TYPE_A | TYPE_AAAA if !zone.is_answered => false,
                TYPE_A if zone.has_v4 => reply.write_nodes::<Ipv4Addr>(row.id, &zone, worker, out),
                TYPE_AAAA if zone.has_v6 => reply.write_nodes::<Ipv6Addr>(row.id, &zone, worker, out),
                _ => reply.write_negative(rcode, worker.soa(row.id), out),
            },
            Subject::NameServer(addresses) => reply.write_name_server(addresses, worker.soa(row.id), out),
            Subject::Nothing | Subject::NoName => reply.write_negative(rcode, worker.soa(row.id), out),
        };
        is_written.then_some(rcode)
    }

    /// The view of a client, if it has one.
    fn view(&self, row: &Row, client: &Client) -> Option<&Row> {
        self.table.views(row.id)?.of(client.address).map(|view| &view.row)
    }

    /// Writes addresses of a view, and counts that. `None`: it has none of the question's family, so the client gets those of the
    /// zone; `false`: the slow path must write them.
    fn write_view(
        &self,
        (view, zone): (&Row, &ZoneSummary),
        reply: &PlainReply<'_>,
        worker: &mut Worker,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let nodes = worker.summary(view);
        // What is no address is the zone's.
        let summary = ZoneSummary { ttl: zone.ttl, count: zone.count, ..nodes };
        let is_written = match reply.query.query_type {
            TYPE_A if nodes.has_v4 => reply.write_nodes::<Ipv4Addr>(view.id, &summary, worker, out),
            TYPE_AAAA if nodes.has_v6 => reply.write_nodes::<Ipv6Addr>(view.id, &summary, worker, out),
            _ => return None,
        };
        if is_written {
            let kind = (query_type_label(reply.query.query_type), Rcode::NoError);
            worker.count_row(view, kind, reply.client.transport, self.counters);
        }
        Some(is_written)
    }

    /// Writes the NS records. The slow path makes them when they are first asked for.
    fn write_name_servers(&self, row: &Row, reply: &PlainReply<'_>, worker: &mut Worker, out: &mut Vec<u8>) -> bool {
        // Where the SOA needs the renderer, so do they.
        if worker.soa(row.id).is_none() {
            return false;
        }
        if worker.name_servers(row.id, self.table.version()).is_none() {
            let Some(records) = self.name_server_records(row, reply.client, worker) else { return false };
            worker.keep_name_servers(row.id, records);
        }
        match worker.name_servers(row.id, self.table.version()) {
            Some(records) if records.answers > 0 => reply.write_name_servers(records, out),
            Some(_) => reply.write_negative(Rcode::NoError, worker.soa(row.id), out),
            None => false,
        }
    }

    /// The NS records of a zone as they follow its name in any spelling: names in them are pointers to the question as far
    /// as they end like the zone's, and otherwise in lower case.
    fn name_server_records(&self, row: &Row, client: &Client, worker: &mut Worker) -> Option<NameServerRecords> {
        let serial = row.entry.answers().serial;
        let header = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let [[t0, t1], [c0, c1]] = [TYPE_NS, CLASS_IN].map(u16::to_be_bytes);
        let message = [&header, row.entry.name().wire(), &[t0, t1, c0, c1]].concat();
        let Parsed::Query(query) = parse(&message) else { return None };
        // So that nothing is left out; whether the reply fits is decided for each question.
        let client = Client { transport: Transport::Tcp, ..*client };
        let mut reply = Reply::new(&query.request, self.table.server(), &client);
        reply.fill(&resolve(self.table, &query, &client), worker).ok()?;
        let mut out = Vec::new();
        reply.render(&mut out);
        let records = NameServerRecords::read(&out, message.len(), self.table.version(), serial)?;
        (records.answers.saturating_add(records.additionals) <= NAME_SERVER_RECORDS_MAX).then_some(records)
    }
}

/// Answers from a domain, which has no nodes. `None`: the slow path must.
fn answer_domain(
    domain: &DomainEntry,
    position: Position<'_>,
    reply: &PlainReply<'_>,
    out: &mut Vec<u8>,
) -> Option<Rcode> {
    let answers = domain.answers();
    if !answers.settings.clients.permit(reply.client.address) {
        return None;
    }
    let DomainSettings { name_servers, negative_ttl, .. } = &answers.settings;
    let soa = SoaParts::new(domain.name(), name_servers, answers.serial, negative_ttl.as_secs());
    let subject = subject(reply.query.query_type, position, false);
    let rcode = rcode(subject);
    let is_written = match subject {
        Subject::Transfer | Subject::NameServers => false,
        Subject::Soa => reply.write_soa(soa, out),
        Subject::NameServer(addresses) => reply.write_name_server(addresses, soa, out),
        Subject::Records | Subject::Nothing | Subject::NoName => reply.write_negative(rcode, soa, out),
    };
    is_written.then_some(rcode)
}

fn rcode(subject: Subject<'_>) -> Rcode {
    if subject == Subject::NoName { Rcode::NxDomain } else { Rcode::NoError }
}
