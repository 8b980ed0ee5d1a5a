//! An explanation as text, for people.

use super::{
    Explanation, SubjectExplanation,
    address::{AddressExplanation, AddressInZone},
    dns::{ClientExplanation, ClientView, DnsAnswer},
    name::{NameExplanation, Place, PlaceKind},
    zone::{OtherNode, Rules, SameList, Sender, ZoneExplanation, ZoneNode},
};
use crate::{
    admin::{
        api::{Probe, ZoneView},
        client::escape_controls,
        history::moment,
    },
    discovery::node::NODES_MAX,
};

/// The width of the headings at the beginning of lines.
const HEADING: usize = 9;

impl Explanation {
    /// All of it. Texts from nodes and from clients are shown without control characters.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!("{}:", self.server)];
        match &self.subject {
            SubjectExplanation::Name(name) => name.write(&mut lines),
            SubjectExplanation::Address(address) => address.write(&mut lines),
        }
        escape_controls(&format!("{}\n", lines.join("\n")))
    }
}

/// A line with a heading; without one it continues the line before.
fn line(heading: &str, text: &str) -> String {
    format!("{heading:HEADING$} {}", text.replace('\n', " "))
}

impl NameExplanation {
    fn write(&self, lines: &mut Vec<String>) {
        lines.push(format!("{} {}", self.name, self.place.sentence()));
        if let Some(zone) = &self.zone {
            zone.write(lines);
        }
        lines.extend(self.views.iter().map(|view| line("view", &view.sentence())));
        if !self.upstreams.is_empty() {
            lines.push(line("upstreams", &self.upstreams.join(", ")));
        }
        if let Some(client) = &self.client {
            client.write(lines);
        }
        for (number, answer) in self.dns.iter().enumerate() {
            lines.push(line(if number == 0 { "DNS" } else { "" }, &answer.sentence()));
        }
    }
}

impl Place {
    /// The end of a sentence that starts with the name.
    fn sentence(&self) -> String {
        let of = self.of.as_deref().unwrap_or_default();
        let defined = self.defined();
        let similar = self.similar.as_ref().map(|zone| format!("; did you mean the zone {zone}?")).unwrap_or_default();
        match self.kind {
            PlaceKind::Zone => format!("is a zone ({defined})"),
            PlaceKind::Subdomain => format!("is answered like the zone {of} ({defined}), which has subdomains = true"),
            PlaceKind::BelowZone => {
                format!("does not exist: it lies below the zone {of} ({defined}), which has subdomains = false")
            }
            PlaceKind::EmptyNonTerminal => {
                format!("has no records: it only has a zone or a name server below it, and lies in {of}")
            }
            PlaceKind::NameServer => format!("is a name server of this server, in {of}"),
            PlaceKind::Domain => "is a domain without nodes ([server] domains)".to_owned(),
            PlaceKind::BelowDomain => format!("does not exist: no zone below the domain {of} has this name"),
            PlaceKind::Forwarded => {
                format!("is in no zone: questions of the clients in [forward] are asked of the upstreams{similar}")
            }
            PlaceKind::Refused => format!("is in no zone, and there is no [forward]: REFUSED{similar}"),
        }
    }
}

impl ClientExplanation {
    fn write(&self, lines: &mut Vec<String>) {
        let may = if self.may_ask { "may ask" } else { "MAY NOT ASK" };
        lines.push(line("client", &format!("{} {may}: {}", self.address, self.because)));
        match self.is_forwarded {
            Some(true) => lines.push(line("", "its questions are forwarded: it is in [forward] clients")),
            Some(false) => lines.push(line("", "its questions are NOT FORWARDED: it is not in [forward] clients")),
            None => {}
        }
        if let Some(view) = &self.view {
            lines.push(line("", &view.sentence()));
        }
        let limit = self.rate_limit.as_deref().unwrap_or("none: [server] rate_limit is not set");
        lines.push(line("limit", limit));
    }
}

impl ClientView {
    fn sentence(&self) -> String {
        match (&self.name, &self.network, self.answered) {
            (Some(view), Some(network), true) => format!("it has the view of {view}, which has {network}"),
            (Some(view), Some(network), false) => {
                format!(
                    "it has the view of {view}, which has {network} and no node in service: it gets the zone's addresses"
                )
            }
            _ => "it is in no view: it gets the zone's addresses".to_owned(),
        }
    }
}

impl ZoneView {
    fn sentence(&self) -> String {
        let scope = self.scope_in_force.as_ref().map(|scope| format!(", {scope}")).unwrap_or_default();
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let addresses = match self.addresses.as_slice() {
            [] => String::new(),
            addresses => format!("; {}", joined(addresses)),
        };
        format!("of {}{scope}: {}{reason}{addresses}", self.name, self.state)
    }
}

impl DnsAnswer {
    fn sentence(&self) -> String {
        let rcode = self.rcode.unwrap_or("forwarded");
        let error = self.extended_error.map(|code| format!(" (EDE {code})")).unwrap_or_default();
        let addresses = match self.addresses.as_slice() {
            [] => String::new(),
            addresses => format!(": {}", joined(addresses)),
        };
        format!("{} {rcode}{error}, {}{addresses}", self.query_type, self.about)
    }
}

impl ZoneExplanation {
    fn write(&self, lines: &mut Vec<String>) {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(line("state", &format!("{} since {}{reason}", self.state, self.since)));
        let port = self.port.map(|port| format!(", port {port}")).unwrap_or_default();
        lines.push(line("seeds", &format!("{}{port}", self.seeds.join(", "))));
        lines.push(line("poll", &self.poll()));
        if !self.scopes.is_empty() {
            let active = self.scope.as_deref().unwrap_or("none yet");
            lines.push(line("scope", &format!("{active}; in the file: {}", self.scopes.join("; then "))));
        }
        for (number, list) in self.lists.iter().enumerate() {
            lines.push(line(if number == 0 { "lists" } else { "" }, &list.sentence()));
        }
        if self.lists.is_empty() {
            lines.push(line("lists", "no node has a report in force"));
        }
        if self.further_lists > 0 {
            lines.push(line("", &format!("and {} further lists", self.further_lists)));
        }
        if self.has_cut_list {
            let remark = "a node lists more: then it is not counted as one that lists them";
            lines.push(line("", &format!("of a list the first {NODES_MAX} nodes are read; perhaps {remark}")));
        }
        let id = self.cluster_id.map(|id| format!("; its id is {id}")).unwrap_or_default();
        lines.push(line("cluster", &format!("{} nodes that report list each other{id}", self.group.len())));
        lines.push(line("rules", &self.rules.sentence()));
        for node in &self.nodes {
            lines.push(line("node", &node.sentence(self.reporting)));
        }
        for other in &self.others {
            lines.push(line("other", &other.sentence()));
        }
        for seed in &self.unresolved {
            lines.push(line("other", &format!("a seed: {seed}")));
        }
        for change in &self.left {
            lines.push(line("left", &change.line()));
        }
    }

    fn poll(&self) -> String {
        let last = match (self.source, self.last_success_seconds_ago) {
            (Some(source), Some(seconds)) => format!("{source} sent the list in force {seconds} s ago"),
            (None, Some(seconds)) => format!("the last usable list came {seconds} s ago"),
            _ => "no usable list yet".to_owned(),
        };
        let error = self.last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default();
        format!("{last}; answered: {}{error}", self.origin)
    }
}

impl SameList {
    fn senders(&self) -> usize {
        self.senders.len() + self.further_senders
    }

    fn sentence(&self) -> String {
        let senders: Vec<String> = self.senders.iter().map(Sender::text).collect();
        let nodes = if self.nodes.is_empty() { "no node".to_owned() } else { joined(&self.nodes) };
        let verb = if self.senders() == 1 { "lists" } else { "list" };
        let senders = format!("{}{}", senders.join(", "), more(self.further_senders));
        format!("{senders} {verb} {nodes}{}", more(self.further_nodes))
    }
}

impl Sender {
    fn text(&self) -> String {
        format!("{} ({} s ago)", self.node, self.seconds_ago)
    }
}

impl Rules {
    fn sentence(&self) -> String {
        let mut parts = Vec::new();
        if !self.exclude.is_empty() {
            parts.push(format!("exclude {}", self.exclude.join(", ")));
        }
        if let Some(allowed) = &self.allow_nodes {
            parts.push(format!("allow_nodes {}", allowed.join(", ")));
        }
        if !self.map.is_empty() {
            parts.push(format!("map {}", self.map.join(", ")));
        }
        if parts.is_empty() { "none".to_owned() } else { parts.join("; ") }
    }
}

impl ZoneNode {
    /// `reporting` nodes have a report in force.
    fn sentence(&self, reporting: usize) -> String {
        let node = &self.node;
        let answered = match (node.answered, node.answered_as) {
            (true, None) => "answered".to_owned(),
            (true, Some(other)) => format!("answered as {other}"),
            (false, None) => "NOT ANSWERED".to_owned(),
            (false, Some(other)) => format!("NOT ANSWERED as {other}"),
        };
        let reason = node.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let belonging = self.belonging.map_or("no report in force".to_owned(), |word| format!("report: {word}"));
        format!(
            "{} {} since {}, {answered}{reason}; listed by {} of {reporting}; {belonging}; {}",
            node.address,
            node.state,
            moment(node.since),
            self.listed_by,
            node.last_probe.as_ref().map_or("not probed".to_owned(), probe)
        )
    }
}

fn probe(probe: &Probe) -> String {
    format!("last probe {} in {} ms at {}", probe.result, probe.milliseconds, moment(probe.at))
}

impl OtherNode {
    fn sentence(&self) -> String {
        let seed = if self.is_seed { "a seed, " } else { "" };
        let belonging = self.belonging.map(|word| format!("; report: {word}")).unwrap_or_default();
        let reason = self.reason.as_ref().map(|reason| format!("; it {reason}")).unwrap_or_default();
        format!("{}: {seed}on no list in force{belonging}{reason}", self.address)
    }
}

impl AddressExplanation {
    fn write(&self, lines: &mut Vec<String>) {
        if self.zones.is_empty() {
            lines.push(format!(
                "{} is in no zone: it is no seed, no node lists it, and it has left none within the last hour",
                self.address
            ));
        }
        for zone in &self.zones {
            zone.write(&self.address.to_string(), lines);
        }
        if self.further_zones > 0 {
            lines.push(format!("and {} further zones", self.further_zones));
        }
    }
}

impl AddressInZone {
    fn write(&self, address: &str, lines: &mut Vec<String>) {
        let defined = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{}:{line}, ", file.display()),
            _ => String::new(),
        };
        let Self { zone, zone_state, verdict, .. } = self;
        lines.push(format!("{zone} ({defined}{zone_state}): {address} {verdict}"));
        let seed = if self.is_seed { "; it is a seed" } else { "" };
        let senders: Vec<String> = self.listed_by.iter().map(Sender::text).collect();
        let count = self.listed_by.len() + self.further_listed_by;
        let listed = match count {
            0 => "no node that reports lists it".to_owned(),
            _ => format!("{}{}", senders.join(", "), more(self.further_listed_by)),
        };
        let missing = match self.not_listed_by.as_slice() {
            [] => String::new(),
            nodes => format!("; not by {}{}", joined(nodes), more(self.further_not_listed_by)),
        };
        lines.push(line("listed", &format!("{listed}{missing}{seed}")));
        match (&self.node, self.belonging) {
            (Some(node), _) => lines.push(line("node", &node.sentence(count + self.not_listed_by_count()))),
            (None, Some(word)) => lines.push(line("report", word)),
            (None, None) => {}
        }
        for change in &self.left {
            lines.push(line("left", &change.line()));
        }
    }

    fn not_listed_by_count(&self) -> usize {
        self.not_listed_by.len() + self.further_not_listed_by
    }
}

fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} more") }
}

fn joined(addresses: &[std::net::IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
