//! `/metrics`: the counters of the process and of every zone, as OpenMetrics text; `format.rs` writes it as the older
//! text format for clients that want that.
//!
//! Each scrape reads the zones that exist now, so the series of a removed zone end with it. The polls and probes of a zone,
//! and its common answers, are there from its start: a rate needs the zero before the first event. Its other counters are
//! left out while they are zero, because ten thousand zones have many of them.

mod format;
mod process;
mod transfers;
mod views;

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

pub use self::format::Format;
use super::AdminState;
use crate::{
    metrics::{
        CertificateUse, DURATION_BUCKETS, DropReason, ForwardResult, Histogram, IgnoreReason, NodeRequest, PollResult,
        ProbeResult, QueryCounters, QueryType, Rcode, ReloadResult, SnapshotIgnored, SnapshotWrite, Transport,
    },
    table::ZoneEntry,
    types::{NodeState, ZoneState},
};

/// Every metric's name starts with it.
const PREFIX: &str = "alternator_dns";

/// What a zone of usual name takes: then the text is not moved while it grows.
const OCTETS_OF_ZONE: usize = 3600;

/// The text of one scrape.
pub(super) fn render(admin: &AdminState) -> String {
    let zones = admin.zones();
    let mut text = String::with_capacity(OCTETS_OF_ZONE * zones.len());
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape { zones, admin: admin.clone() }));
    match text::encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a `String` never fails. If it did, a scraper would refuse a text without its end.
        Err(fmt::Error) => String::new(),
    }
}

/// One scrape; all families use the same list of zones.
#[derive(Debug)]
struct Scrape {
    admin: AdminState,
    zones: Vec<(String, Arc<ZoneEntry>)>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.traffic(&mut families)?;
        self.polls(&mut families)?;
        self.probes(&mut families)?;
        self.node_requests(&mut families)?;
        self.zone_states(&mut families)?;
        self.views(&mut families)?;
        self.node_changes(&mut families)?;
        self.snapshot(&mut families)?;
        self.configuration(&mut families)?;
        self.certificates(&mut families)?;
        self.transfers(&mut families)?;
        self.process(&mut families)
    }
}

impl Scrape {
    /// Queries and replies.
    fn traffic(&self, families: &mut Families<'_>) -> fmt::Result {
        let process = &self.admin.process;
        let no_zone = queries("", &process.no_zone, |query_type, rcode, transport| {
            process.no_zone.value(query_type, rcode, transport)
        });
        let zones = self.zones.iter().flat_map(|(name, entry)| {
            queries(name, &entry.counters().queries, |query_type, rcode, transport| {
                entry.queries(&process.workers, query_type, rcode, transport)
            })
        });
        families.counters(
            "queries",
            "Queries answered, by zone; zone \"\" counts those outside all zones.",
            no_zone.chain(zones),
        )?;
        let ignored =
            IgnoreReason::ALL.iter().map(|&reason| ([("reason", reason.word())], process.ignored.of(reason).value()));
        families.counters("ignored", "Messages that got no reply.", ignored)?;
        families.counter("fast_lane", "Queries answered on the fast path.", process.workers.fast_path())?;
        let forwarded = ForwardResult::ALL
            .iter()
            .map(|&result| ([("result", result.word())], process.forwarded.of(result).value()));
        families.counters("forwarded", "Queries forwarded to the upstreams of [forward], by outcome.", forwarded)?;
        families.counter("send_errors", "Replies that the kernel did not accept.", process.send_errors.value())?;
        families.gauge(
            "tcp_connections",
            "Connections over TCP, TLS and HTTPS open now.",
            None,
            process.tcp_connections.value(),
        )
    }

    /// Probes.
    fn probes(&self, families: &mut Families<'_>) -> fmt::Result {
        let probes = self.zones.iter().flat_map(|(name, entry)| {
            ProbeResult::ALL.iter().map(move |&result| {
                let count = entry.counters().probes.of(result).value();
                ([("zone", name.as_str()), ("result", result.word())], count)
            })
        });
        let help = "Health probes of the zone's nodes, by outcome; zones that share a probe count it each.";
        families.counters("probes", help, probes)?;
        let intervals = self
            .zones
            .iter()
            .filter_map(|(name, entry)| Some((zone(name), entry.poll_status().probe_interval?.as_secs_f64())));
        let help = "Time between two probes of a node, longer when a zone has many nodes; absent without probes.";
        families.gauges("probe_interval", help, Some(Unit::Seconds), intervals)
    }

    /// What nodes get from this server.
    fn node_requests(&self, families: &mut Families<'_>) -> fmt::Result {
        let requests = &self.admin.process.node_requests;
        let by_kind = NodeRequest::ALL.iter().map(|&kind| ([("kind", kind.word())], requests.total(kind)));
        families.counters("node_requests", "Requests sent to nodes, for all zones together.", by_kind)?;
        let now = Instant::now();
        let highest = self.zones.iter().map(|(name, entry)| {
            let rates = entry.nodes().iter().map(|node| requests.per_second(node.address, now)).fold(0.0, f64::max);
            (zone(name), rates)
        });
        let help = "Requests a second that a node of the zone got in the last minute, for all zones together: the most asked node.";
        families.gauges("node_requests_per_second", help, None, highest)
    }

    /// Polls.
    fn polls(&self, families: &mut Families<'_>) -> fmt::Result {
        let polls = self.zones.iter().flat_map(|(name, entry)| {
            PollResult::ALL.iter().map(move |&result| {
                let count = entry.counters().polls.of(result).value();
                ([("zone", name.as_str()), ("result", result.word())], count)
            })
        });
        families.counters("polls", "Requests for /localnodes, by outcome.", polls)?;
        let dropped = self.zones.iter().flat_map(|(name, entry)| {
            DropReason::ALL.iter().map(move |&reason| {
                let count = entry.counters().dropped.of(reason).value();
                ([("zone", name.as_str()), ("reason", reason.word())], count)
            })
        });
        let dropped = dropped.filter(|(_, count)| *count > 0);
        families.counters("entries_dropped", "Entries of node lists that were left out.", dropped)?;
        let restarts = self.zones.iter().map(|(name, entry)| (zone(name), entry.counters().poller_restarts.value()));
        families.counters("poller_restarts", "Restarts of pollers after a panic or a stall.", restarts)?;
        let aside = self.zones.iter().map(|(name, entry)| (zone(name), entry.counters().lists_set_aside.value()));
        let help = "Node lists that were not used: of another cluster, of a node that no other node lists yet, or contradicted by nodes that they leave out.";
        families.counters("lists_set_aside", help, aside)?;
        let now = Instant::now();
        let ages = self.zones.iter().filter_map(|(name, entry)| {
            let then = entry.poll_status().last_success?;
            Some((zone(name), now.saturating_duration_since(then).as_secs_f64()))
        });
        let help = "Time since the last usable list; absent before the first.";
        families.gauges("poll_age", help, Some(Unit::Seconds), ages)?;
        let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let times = self.zones.iter().filter_map(|(name, entry)| {
            let age = now.saturating_duration_since(entry.poll_status().last_success?);
            Some((zone(name), unix_now.saturating_sub(age).as_secs_f64()))
        });
        let help = "Unix time of the last usable list; absent before the first.";
        families.gauges("poll_last_success_timestamp", help, Some(Unit::Seconds), times)?;
        let durations = self.admin.process.node_requests.list_durations();
        families.histogram("poll_duration", "Time that a request for /localnodes took, also a failed one.", durations)
    }

    /// States of zones and nodes.
    fn zone_states(&self, families: &mut Families<'_>) -> fmt::Result {
        let states = self.zones.iter().flat_map(|(name, entry)| {
            let current = entry.state();
            let one = move |state: ZoneState| {
                ([("zone", name.as_str()), ("state", state.word())], u64::from(state == current))
            };
            ZoneState::ALL.into_iter().map(one)
        });
        families.gauges("zone_state", "1 for the state that the zone is in, 0 for the others.", None, states)?;
        let nodes = self.zones.iter().flat_map(|(name, entry)| {
            let answers = entry.answers();
            let states: Vec<_> = answers.nodes().iter().map(|node| answers.node_state(node)).collect();
            NodeState::ALL.into_iter().map(move |state| {
                let count = states.iter().filter(|&&node| node == state).count();
                ([("zone", name.as_str()), ("state", state.word())], count)
            })
        });
        families.gauges("nodes", "Nodes that the zone's cluster lists, by state.", None, nodes)?;
        let answerable = self.zones.iter().map(|(name, entry)| (zone(name), entry.answers().addresses().count()));
        let help = "Addresses that a client can get now, of both families, seeds of a waiting zone too; 0 is SERVFAIL.";
        families.gauges("zone_answerable_nodes", help, None, answerable)
    }

    /// How soon a change of nodes reaches the answers.
    fn node_changes(&self, families: &mut Families<'_>) -> fmt::Result {
        let help = "Time from the first byte of a poll's reply to the changed answer.";
        families.histogram("node_change", help, &self.admin.process.node_change)
    }

    /// The snapshot for the next start.
    fn snapshot(&self, families: &mut Families<'_>) -> fmt::Result {
        let process = &self.admin.process;
        let ignored = SnapshotIgnored::ALL
            .iter()
            .map(|&reason| ([("reason", reason.word())], process.snapshots_ignored.of(reason).value()));
        let help = "Nodes of the snapshot that were not used at start: the whole file, or one zone in it.";
        families.counters("snapshot_ignored", help, ignored)?;
        let writes = SnapshotWrite::ALL
            .iter()
            .map(|&result| ([("result", result.word())], process.snapshot_writes.of(result).value()));
        families.counters("snapshot_writes", "Writes of the snapshot to the state directory, by outcome.", writes)
    }

    /// The configuration file.
    fn configuration(&self, families: &mut Families<'_>) -> fmt::Result {
        let config = self.admin.config.load();
        let reloads = ReloadResult::ALL
            .iter()
            .map(|&result| ([("result", result.word())], self.admin.process.reloads.of(result).value()));
        families.counters("config_reloads", "Reloads of the configuration file, by outcome.", reloads)?;
        let in_force = u64::from(config.error.is_none());
        families.gauge(
            "config_reload_success",
            "1 if the current file is in force, 0 if it was refused.",
            None,
            in_force,
        )?;
        let loaded = config.loaded.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "Unix time at which the configuration in force was loaded.";
        families.gauge("config_last_success_timestamp", help, Some(Unit::Seconds), loaded)?;
        families.info("config", "The configuration in force.", [("hash", config.hash.as_str())])?;
        families.info("build", "This program.", [("version", env!("CARGO_PKG_VERSION"))])
    }

    /// Certificates.
    fn certificates(&self, families: &mut Families<'_>) -> fmt::Result {
        let process = &self.admin.process;
        let expiries = CertificateUse::ALL.iter().map(|&purpose| {
            let expiry = process.certificate_expiry.of(purpose).value();
            ([("use", purpose.word())], expiry)
        });
        let help = "Unix time at which the first certificate that the configuration names, or that a node shows, expires, by its use.";
        let known = expiries.filter(|(_, expiry)| *expiry > 0);
        families.gauges("certificate_expiry_timestamp", help, Some(Unit::Seconds), known)
    }
}

/// The combinations that are not zero, and the common answers of a zone.
fn queries<'c, F: Fn(QueryType, Rcode, Transport) -> u64 + Copy + 'c>(
    zone: &'c str,
    counters: &QueryCounters,
    count: F,
) -> impl Iterator<Item = ([(&'static str, &'c str); 4], u64)> + use<'c, F> {
    let transports = counters.transports();
    QueryType::ALL.iter().flat_map(move |&query_type| {
        Rcode::ALL.iter().flat_map(move |&rcode| {
            transports.iter().filter_map(move |&transport| {
                let labels = [
                    ("zone", zone),
                    ("type", query_type.word()),
                    ("rcode", rcode.word()),
                    ("transport", transport.word()),
                ];
                let count = count(query_type, rcode, transport);
                let common = !zone.is_empty()
                    && matches!(query_type, QueryType::A | QueryType::Aaaa)
                    && rcode == Rcode::NoError
                    && matches!(transport, Transport::Udp | Transport::Tcp);
                (count > 0 || common).then_some((labels, count))
            })
        })
    })
}

fn zone(name: &str) -> [(&'static str, &str); 1] {
    [("zone", name)]
}

/// Writes families, each with HELP, TYPE and UNIT, then its samples.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    /// `name` without `_total`, which the format adds.
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in samples {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&count, None)
    }

    /// `name` without the unit, which the format adds.
    fn histogram(&mut self, name: &str, help: &str, durations: &Histogram) -> fmt::Result {
        let (sum, counts) = durations.snapshot();
        let bounds = DURATION_BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    /// `name` without the unit, which the format adds.
    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl Iterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
    }

    /// `name` without `_info`, which the format adds.
    fn info(&mut self, name: &str, help: &str, labels: [(&str, &str); 1]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{admin_state, known, waiting},
        *,
    };
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    use crate::{table::ZoneSettings, types::AddressRules};

    /// Parses OpenMetrics text and checks its grammar: each family once, HELP and TYPE before its samples, UNIT as the
    /// name's suffix, suffixes by type, EOF last. Returns the type of each family and the value of each series.
    fn read(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
        let mut types = BTreeMap::new();
        let mut samples = BTreeMap::new();
        let mut family = String::new();
        let mut helped = BTreeSet::new();
        let lines = text.strip_suffix("# EOF\n").expect("the end is marked").lines();
        for line in lines {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", name, help] => {
                    assert!(helped.insert((*name).to_owned()) && help.ends_with('.'), "{line}");
                }
                ["#", "TYPE", name, kind] => {
                    assert!(helped.contains(*name), "{line}");
                    family = (*name).to_owned();
                    assert!(types.insert(family.clone(), (*kind).to_owned()).is_none(), "twice: {line}");
                }
                ["#", "UNIT", name, unit] => assert!(*name == family && name.ends_with(&format!("_{unit}")), "{line}"),
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                    let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("outside its family: {line}"));
                    let allowed: &[&str] = match types[&family].as_str() {
                        "counter" => &["_total"],
                        "gauge" => &[""],
                        "info" => &["_info"],
                        "histogram" => &["_bucket", "_sum", "_count"],
                        other => panic!("{other}"),
                    };
                    assert!(allowed.contains(&suffix), "{line}");
                    check_labels(labels.strip_suffix('}').unwrap());
                    assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
                }
            }
        }
        (types, samples)
    }

    /// `name="value",…`, with quotes, backslashes and line breaks escaped.
    fn check_labels(mut labels: &str) {
        while !labels.is_empty() {
            let (name, rest) = labels.split_once("=\"").unwrap();
            assert!(name.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_'), "{name}");
            let mut escaped = false;
            let end = rest.find(|c| {
                let closing = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closing
            });
            let rest = &rest[end.unwrap() + 1..];
            labels = rest.strip_prefix(',').unwrap_or(rest);
        }
    }

    #[test]
    fn all_documented_metrics_are_present() {
        let (types, _) = read(&render(&admin_state(vec![known("a", &["10.0.0.1"], false)])));
        let counters = [
            "queries",
            "ignored",
            "fast_lane",
            "forwarded",
            "view_queries",
            "transfers",
            "transfer_refusals",
            "notifies",
            "notify_replies_ignored",
            "send_errors",
            "polls",
            "probes",
            "node_requests",
            "entries_dropped",
            "poller_restarts",
            "lists_set_aside",
            "config_reloads",
            "snapshot_ignored",
            "snapshot_writes",
            "log_lines_dropped",
            "process_cpu_seconds",
        ];
        let gauges = [
            "tcp_connections",
            "poll_age_seconds",
            "probe_interval_seconds",
            "node_requests_per_second",
            "nodes",
            "zone_state",
            "zone_answerable_nodes",
            "config_reload_success",
            "config_last_success_timestamp_seconds",
            "certificate_expiry_timestamp_seconds",
            "catalog_serial",
            "view_state",
            "secondary_serial",
            "secondary_lag_seconds",
            "secondary_unconfirmed_seconds",
            "uptime_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_virtual_memory_bytes",
            "process_start_time_seconds",
            "poll_last_success_timestamp_seconds",
        ];
        let documented = counters
            .into_iter()
            .map(|name| (name, "counter"))
            .chain(gauges.into_iter().map(|name| (name, "gauge")))
            .chain([
                ("node_change_seconds", "histogram"),
                ("poll_duration_seconds", "histogram"),
                ("config", "info"),
                ("build", "info"),
            ])
            .map(|(name, kind)| (format!("alternator_dns_{name}"), kind.to_owned()));
        assert_eq!(types, documented.collect());
    }

    /// The names of series, with the labels that are asked for, in an expression of PromQL.
    fn selectors(expression: &str) -> Vec<(&str, Vec<&str>)> {
        let starts = expression.match_indices("alternator_dns_").map(|(start, _)| &expression[start..]);
        starts
            .map(|text| {
                let end = text.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(text.len());
                let (name, rest) = text.split_at(end);
                let matchers =
                    rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
                // No value in the files below has a comma.
                let labels = matchers.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap_or_default());
                (name, labels.filter(|label| !label.is_empty()).collect())
            })
            .collect()
    }

    fn expressions(json: &serde_json::Value, found: &mut Vec<String>) {
        match json {
            serde_json::Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        serde_json::Value::String(text) if ["expr", "definition"].contains(&name.as_str()) => {
                            found.push(text.clone());
                        }
                        value => expressions(value, found),
                    }
                }
            }
            _ => {}
        }
    }

    /// The dashboard and the alerts that are shipped.
    #[test]
    fn what_is_shipped_asks_for_metrics_and_labels_that_exist() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
        let dashboard = std::fs::read_to_string(root.join("grafana/alternator-dns.json")).unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        let mut asked = Vec::new();
        expressions(&dashboard, &mut asked);
        assert!(asked.len() > 30, "{asked:?}");
        let rules = std::fs::read_to_string(root.join("prometheus/alternator-dns.rules.yml")).unwrap();
        asked.push(rules);
        let admin = admin_state(vec![known("a", &["10.0.0.1"], false)]);
        admin.process.certificate_expiry.of(CertificateUse::Ca).set(1_795_380_000);
        let (types, samples) = read(&render(&admin));
        for (name, labels) in asked.iter().flat_map(|expression| selectors(expression)) {
            let family = |suffix: &str, kind: &str| {
                name.strip_suffix(suffix).and_then(|name| types.get(name)).is_some_and(|found| found == kind)
            };
            let exists = family("", "gauge") || family("_total", "counter") || family("_info", "info");
            assert!(exists || family("_bucket", "histogram"), "{name} is not exported");
            let series = samples.keys().find(|series| series.split('{').next() == Some(name));
            for label in labels.into_iter().filter(|label| !["instance", "job"].contains(label)) {
                // Some series appear with their first count only.
                let has = series.is_none_or(|series| series.contains(&format!("{label}=\"")));
                assert!(has, "{name} has no label {label}");
            }
        }
    }

    #[test]
    fn counters_appear_with_their_labels_and_values() {
        let zone = known("alternator.east.example", &["10.0.0.1", "10.0.0.2"], true);
        zone.counters().queries.of(QueryType::A, Rcode::NoError, Transport::Udp).add(3);
        zone.counters().polls.of(PollResult::Timeout).add(2);
        zone.counters().dropped.of(DropReason::NotAddress).increment();
        zone.counters().probes.of(ProbeResult::Refused).add(4);
        let node = "10.0.0.2".parse().unwrap();
        let admin = admin_state(vec![zone, waiting("b")]);
        admin.process.no_zone.of(QueryType::Other, Rcode::Refused, Transport::Tcp).increment();
        admin.process.node_change.observe(Duration::from_millis(2));
        admin.process.node_requests.count(node, NodeRequest::Health, Instant::now());
        let (_, samples) = read(&render(&admin));
        let east = r#"zone="alternator.east.example.""#;
        let value = |series: String| samples.get(&format!("alternator_dns_{series}")).copied();
        assert_eq!(value(format!(r#"queries_total{{{east},type="A",rcode="NOERROR",transport="udp"}}"#)), Some(3.0));
        assert_eq!(value(r#"queries_total{zone="",type="other",rcode="REFUSED",transport="tcp"}"#.into()), Some(1.0));
        assert_eq!(
            samples.keys().filter(|series| series.contains("queries_total")).count(),
            9,
            "of each zone four, and what was counted"
        );
        assert_eq!(value(r#"queries_total{zone="b.",type="AAAA",rcode="NOERROR",transport="tcp"}"#.into()), Some(0.0));
        assert_eq!(value(r#"polls_total{zone="b.",result="ok"}"#.into()), Some(0.0), "from the start");
        assert_eq!(value(format!(r#"polls_total{{{east},result="timeout"}}"#)), Some(2.0));
        assert_eq!(value(format!(r#"entries_dropped_total{{{east},reason="not_address"}}"#)), Some(1.0));
        assert_eq!(value(format!(r#"probes_total{{{east},result="refused"}}"#)), Some(4.0));
        assert_eq!(value(format!(r#"probes_total{{{east},result="ok"}}"#)), Some(0.0));
        assert!(value(format!("poll_last_success_timestamp_seconds{{{east}}}")).unwrap() > 1e9);
        assert_eq!(value(r#"node_requests_total{kind="health"}"#.into()), Some(1.0));
        assert_eq!(value(format!("node_requests_per_second{{{east}}}")), Some(1.0));
        assert_eq!(value(r#"node_requests_per_second{zone="b."}"#.into()), Some(0.0));
        assert_eq!(value(format!("zone_answerable_nodes{{{east}}}")), Some(2.0));
        assert_eq!(value(r#"zone_answerable_nodes{zone="b."}"#.into()), Some(0.0));
        assert_eq!(value(r#"zone_state{zone="b.",state="unanswered"}"#.into()), Some(1.0));
        assert_eq!(value(format!(r#"zone_state{{{east},state="stale"}}"#)), Some(1.0));
        assert_eq!(value(format!(r#"zone_state{{{east},state="live"}}"#)), Some(0.0));
        assert_eq!(value(format!(r#"nodes{{{east},state="up"}}"#)), Some(2.0));
        assert_eq!(value(format!(r#"nodes{{{east},state="down"}}"#)), Some(0.0));
        assert!(value(format!("poll_age_seconds{{{east}}}")).is_some());
        assert_eq!(value(r#"poll_age_seconds{zone="b."}"#.into()), None, "no success yet");
        assert_eq!(value(r#"node_change_seconds_bucket{le="0.001"}"#.into()), Some(0.0));
        assert_eq!(value(r#"node_change_seconds_bucket{le="0.005"}"#.into()), Some(1.0));
        assert_eq!(value(r#"node_change_seconds_bucket{le="+Inf"}"#.into()), Some(1.0));
        assert_eq!(value("config_reload_success".into()), Some(1.0));
        assert_eq!(value(r#"config_info{hash="0123456789abcdef"}"#.into()), Some(1.0));
    }

    #[test]
    fn an_excluded_node_is_counted_as_such_and_is_not_answerable() {
        let zone = known("a", &["10.0.0.1", "10.0.0.2"], false);
        let rules = AddressRules { exclude: vec!["10.0.0.1/32".parse().unwrap()], ..AddressRules::default() };
        zone.configure(&ZoneSettings { rules, ..ZoneSettings::example() }, 2000);
        let (_, samples) = read(&render(&admin_state(vec![zone])));
        let value = |series: &str| samples[&format!("alternator_dns_{series}")];
        assert_eq!(value(r#"nodes{zone="a.",state="excluded"}"#), 1.0);
        assert_eq!(value(r#"nodes{zone="a.",state="up"}"#), 1.0);
        assert_eq!(value(r#"zone_answerable_nodes{zone="a."}"#), 1.0);
    }

    #[test]
    fn labels_are_escaped() {
        let admin = admin_state(vec![]);
        admin.config.rcu(|config| crate::config::ConfigStatus { hash: "a\"b\\c\nd".into(), ..(**config).clone() });
        let text = render(&admin);
        assert!(text.contains(r#"config_info{hash="a\"b\\c\nd"} 1"#));
        read(&text);
    }
}
