//! `/metrics`: the counters of the process and of every zone, as OpenMetrics text.
//!
//! Nothing is registered and nothing forgotten: each scrape reads the zones that there are now, so a zone's series go
//! with the zone. Series of a zone that have never counted anything are left out, or ten thousand zones would fill
//! pages with zeros.

use std::{
    fmt, fs,
    sync::Arc,
    time::{Instant, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::View;
use crate::{
    metrics::{
        DropReason, ForwardResult, IgnoreReason, NODE_CHANGE_BUCKETS, PollResult, QueryType, Rcode, ReloadResult,
        SnapshotIgnored, SnapshotWrite, Transport,
    },
    table::ZoneEntry,
    types::{NodeState, ZoneState},
};

/// What `/metrics` is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric's name starts with it.
const PREFIX: &str = "alternator_dns";

/// The text of one scrape.
pub(super) fn render(view: &View) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape { zones: view.zones(), view: view.clone() }));
    let mut text = String::new();
    match text::encode(&mut text, &registry) {
        Ok(()) => text,
        // A `String` takes everything, so nothing gets here; a scraper refuses a text without its end.
        Err(fmt::Error) => String::new(),
    }
}

/// What one scrape reads: one list of zones for all families.
#[derive(Debug)]
struct Scrape {
    view: View,
    zones: Vec<(String, Arc<ZoneEntry>)>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.traffic(&mut families)?;
        self.polls(&mut families)?;
        self.zone_states(&mut families)?;
        self.node_changes(&mut families)?;
        self.memory(&mut families)?;
        self.configuration(&mut families)?;
        self.process(&mut families)
    }
}

impl Scrape {
    /// What was asked and answered.
    fn traffic(&self, families: &mut Families<'_>) -> fmt::Result {
        let process = &self.view.process;
        let no_zone = queries("", |query_type, rcode, transport| process.no_zone.value(query_type, rcode, transport));
        let zones = self.zones.iter().flat_map(|(name, entry)| {
            queries(name, |query_type, rcode, transport| entry.queries(&process.workers, query_type, rcode, transport))
        });
        families.counters(
            "queries",
            "Questions answered, by zone; zone \"\" is no zone of ours.",
            no_zone.chain(zones),
        )?;
        let ignored = IgnoreReason::ALL
            .iter()
            .map(|&reason| ([("reason", reason.word())], process.ignored.of(reason as usize).value()));
        families.counters("ignored", "Messages that got no reply.", ignored)?;
        families.counter("fast_lane", "Questions that took the fast lane.", process.workers.fast_lane())?;
        let forwarded = ForwardResult::ALL
            .iter()
            .map(|&result| ([("result", result.word())], process.forwarded.of(result as usize).value()));
        families.counters("forwarded", "Questions for the upstreams of [forward], by outcome.", forwarded)?;
        families.counter("send_errors", "Replies that the kernel did not take.", process.send_errors.value())?;
        families.gauge("tcp_connections", "TCP connections open now.", None, process.tcp_connections.value())
    }

    /// What the pollers did.
    fn polls(&self, families: &mut Families<'_>) -> fmt::Result {
        let polls = self.zones.iter().flat_map(|(name, entry)| {
            PollResult::ALL.iter().map(move |&result| {
                let count = entry.counters().polls.of(result as usize).value();
                ([("zone", name.as_str()), ("result", result.word())], count)
            })
        });
        families.counters("polls", "Requests for /localnodes, by outcome.", polls.filter(|(_, count)| *count > 0))?;
        let dropped = self.zones.iter().flat_map(|(name, entry)| {
            DropReason::ALL.iter().map(move |&reason| {
                let count = entry.counters().dropped.of(reason as usize).value();
                ([("zone", name.as_str()), ("reason", reason.word())], count)
            })
        });
        let dropped = dropped.filter(|(_, count)| *count > 0);
        families.counters("entries_dropped", "Entries of node lists that were left out.", dropped)?;
        let restarts = self.zones.iter().map(|(name, entry)| (zone(name), entry.counters().poller_restarts.value()));
        families.counters("poller_restarts", "Pollers that panicked or stalled and were started again.", restarts)?;
        let aside = self.zones.iter().map(|(name, entry)| (zone(name), entry.counters().claims_set_aside.value()));
        let help = "Lists that were set aside: unrelated, foreign, or contradicted by nodes that they leave out.";
        families.counters("lists_set_aside", help, aside)?;
        let intervals = self
            .zones
            .iter()
            .filter_map(|(name, entry)| Some((zone(name), entry.poll_status().probe_interval?.as_secs_f64())));
        let help = "Between two probes of a node, stretched where a zone has many; absent without probes.";
        families.gauges("probe_interval", help, Some(Unit::Seconds), intervals)?;
        let now = Instant::now();
        let ages = self.zones.iter().filter_map(|(name, entry)| {
            let then = entry.poll_status().last_success?;
            Some((zone(name), now.saturating_duration_since(then).as_secs_f64()))
        });
        let help = "Since a usable list last arrived; absent before the first.";
        families.gauges("poll_age", help, Some(Unit::Seconds), ages)
    }

    /// What the zones are worth.
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
            let known = entry.nodes();
            NodeState::ALL.into_iter().map(move |state| {
                let count = known.iter().filter(|node| node.state == state).count();
                ([("zone", name.as_str()), ("state", state.word())], count)
            })
        });
        families.gauges("nodes", "Nodes that the zone's cluster lists, by state.", None, nodes)
    }

    /// How fast a change of nodes is answered.
    fn node_changes(&self, families: &mut Families<'_>) -> fmt::Result {
        let (sum, counts) = self.view.process.node_change.snapshot();
        let bounds = NODE_CHANGE_BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let help = "From a poll's first byte to the changed answer.";
        let unit = Unit::Seconds;
        let mut metric = families.0.encode_descriptor("node_change", help, Some(&unit), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    /// What became of the nodes that are kept for the next start.
    fn memory(&self, families: &mut Families<'_>) -> fmt::Result {
        let process = &self.view.process;
        let ignored = SnapshotIgnored::ALL
            .iter()
            .map(|&reason| ([("reason", reason.word())], process.snapshots_ignored.of(reason as usize).value()));
        let help = "Nodes known before the start that were not believed: a whole file, or one zone in it.";
        families.counters("snapshot_ignored", help, ignored)?;
        let writes = SnapshotWrite::ALL
            .iter()
            .map(|&result| ([("result", result.word())], process.snapshot_writes.of(result as usize).value()));
        families.counters("snapshot_writes", "Writes of the known nodes to the state directory, by outcome.", writes)
    }

    /// What became of the file.
    fn configuration(&self, families: &mut Families<'_>) -> fmt::Result {
        let config = self.view.config.load();
        let reloads = ReloadResult::ALL
            .iter()
            .map(|&result| ([("result", result.word())], self.view.process.reloads.of(result as usize).value()));
        families.counters("config_reloads", "Changes of the configuration file, by outcome.", reloads)?;
        let in_force = u64::from(config.error.is_none());
        families.gauge("config_reload_success", "1 when the file as it is now is in force.", None, in_force)?;
        let loaded = config.loaded.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "Unix time at which the file in force was loaded.";
        families.gauge("config_last_success_timestamp", help, Some(Unit::Seconds), loaded)?;
        families.info("config", "The file in force.", [("hash", config.hash.as_str())])?;
        families.info("build", "This program.", [("version", env!("CARGO_PKG_VERSION"))])
    }

    /// What the kernel says of the process; left out where there is no `/proc`.
    fn process(&self, families: &mut Families<'_>) -> fmt::Result {
        if let Some(octets) = resident_octets() {
            families.gauge("process_resident_memory", "Resident memory.", Some(Unit::Bytes), octets)?;
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // One of them reads the list.
            let open = descriptors.count().saturating_sub(1);
            families.gauge("process_open_fds", "Open file descriptors.", None, open)?;
        }
        let dropped = crate::telemetry::log_lines_dropped();
        families.counter("log_lines_dropped", "Log lines that standard error did not take.", dropped)?;
        families.gauge(
            "uptime",
            "Since the process started.",
            Some(Unit::Seconds),
            self.view.started.elapsed().as_secs_f64(),
        )
    }
}

/// The combinations that were ever counted.
fn queries<'c>(
    zone: &'c str,
    count: impl Fn(QueryType, Rcode, Transport) -> u64 + Copy + 'c,
) -> impl Iterator<Item = ([(&'static str, &'c str); 4], u64)> {
    QueryType::ALL.iter().flat_map(move |&query_type| {
        Rcode::ALL.iter().flat_map(move |&rcode| {
            Transport::ALL.iter().filter_map(move |&transport| {
                let labels = [
                    ("zone", zone),
                    ("type", query_type.word()),
                    ("rcode", rcode.word()),
                    ("transport", transport.word()),
                ];
                let count = count(query_type, rcode, transport);
                (count > 0).then_some((labels, count))
            })
        })
    })
}

fn zone(name: &str) -> [(&'static str, &str); 1] {
    [("zone", name)]
}

/// `VmRSS` of `/proc/self/status`, which is in units of 1024 octets.
fn resident_octets() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Writes one family after the other: HELP, TYPE and UNIT, then its samples in a row.
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
        super::tests::{known, view, waiting},
        *,
    };
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    /// Reads OpenMetrics text line by line, and insists on its grammar: each family once, HELP and TYPE before its
    /// samples, UNIT as the name's suffix, suffixes by type, EOF last. Gives the type of each family and each sample.
    fn read(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
        let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
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
    fn every_promised_name_is_there() {
        let (types, _) = read(&render(&view(vec![known("a", &["10.0.0.1"], false)])));
        let counters = [
            "queries",
            "ignored",
            "fast_lane",
            "forwarded",
            "send_errors",
            "polls",
            "entries_dropped",
            "poller_restarts",
            "lists_set_aside",
            "config_reloads",
            "snapshot_ignored",
            "snapshot_writes",
            "log_lines_dropped",
        ];
        let gauges = [
            "tcp_connections",
            "poll_age_seconds",
            "probe_interval_seconds",
            "nodes",
            "zone_state",
            "config_reload_success",
            "config_last_success_timestamp_seconds",
            "uptime_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
        ];
        let promised = counters
            .into_iter()
            .map(|name| (name, "counter"))
            .chain(gauges.into_iter().map(|name| (name, "gauge")))
            .chain([("node_change_seconds", "histogram"), ("config", "info"), ("build", "info")])
            .map(|(name, kind)| (format!("alternator_dns_{name}"), kind.to_owned()));
        assert_eq!(types, promised.collect());
    }

    #[test]
    fn what_was_counted_is_told() {
        let zone = known("alternator.east.example", &["10.0.0.1", "10.0.0.2"], true);
        zone.counters().queries.of(QueryType::A, Rcode::NoError, Transport::Udp).add(3);
        zone.counters().polls.of(PollResult::Timeout as usize).add(2);
        zone.counters().dropped.of(DropReason::NotAddress as usize).increment();
        let view = view(vec![zone, waiting("b")]);
        view.process.no_zone.of(QueryType::Other, Rcode::Refused, Transport::Tcp).increment();
        view.process.node_change.observe(Duration::from_millis(2));
        let (_, samples) = read(&render(&view));
        let east = r#"zone="alternator.east.example.""#;
        let told = |series: String| samples.get(&format!("alternator_dns_{series}")).copied();
        assert_eq!(told(format!(r#"queries_total{{{east},type="A",rcode="NOERROR",transport="udp"}}"#)), Some(3.0));
        assert_eq!(told(r#"queries_total{zone="",type="other",rcode="REFUSED",transport="tcp"}"#.into()), Some(1.0));
        assert_eq!(samples.keys().filter(|series| series.contains("queries_total")).count(), 2, "no zeros");
        assert_eq!(told(format!(r#"polls_total{{{east},result="timeout"}}"#)), Some(2.0));
        assert_eq!(told(format!(r#"entries_dropped_total{{{east},reason="not_address"}}"#)), Some(1.0));
        assert_eq!(told(format!(r#"zone_state{{{east},state="stale"}}"#)), Some(1.0));
        assert_eq!(told(format!(r#"zone_state{{{east},state="live"}}"#)), Some(0.0));
        assert_eq!(told(format!(r#"nodes{{{east},state="up"}}"#)), Some(2.0));
        assert_eq!(told(format!(r#"nodes{{{east},state="drained"}}"#)), Some(0.0));
        assert!(told(format!("poll_age_seconds{{{east}}}")).is_some());
        assert_eq!(told(r#"poll_age_seconds{zone="b."}"#.into()), None, "no success yet");
        assert_eq!(told(r#"node_change_seconds_bucket{le="0.001"}"#.into()), Some(0.0));
        assert_eq!(told(r#"node_change_seconds_bucket{le="0.005"}"#.into()), Some(1.0));
        assert_eq!(told(r#"node_change_seconds_bucket{le="+Inf"}"#.into()), Some(1.0));
        assert_eq!(told("config_reload_success".into()), Some(1.0));
        assert_eq!(told(r#"config_info{hash="0123456789abcdef"}"#.into()), Some(1.0));
    }

    #[test]
    fn labels_are_escaped() {
        let view = view(vec![]);
        view.config.rcu(|config| crate::config::ConfigStatus { hash: "a\"b\\c\nd".into(), ..(**config).clone() });
        let text = render(&view);
        assert!(text.contains(r#"config_info{hash="a\"b\\c\nd"} 1"#));
        read(&text);
    }
}
