use std::{net::Ipv4Addr, num::NonZeroU32, time::UNIX_EPOCH};

use proptest::prelude::*;

use super::{
    super::tests::{admin_state, known, waiting},
    dns::{ClientExplanation, NameClients},
    zone::{left, same_lists, shown_lists},
    *,
};
use crate::{
    table::{Change, ChangeKind, NodeReport},
    types::{AllowedClients, NodeSet, NodeState, RateLimit},
};

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn now() -> Now {
    Now { instant: Instant::now(), day: SystemTime::now() }
}

fn report(sender: u8, nodes: &[u8], at: Instant) -> NodeReport {
    NodeReport { sender: ip(sender), at, nodes: NodeSet::new(nodes.iter().copied().map(ip)), cluster_id: None }
}

fn request(text: &str) -> Request {
    Request { subject: text.parse().unwrap(), query_type: None, client: None }
}

fn text(admin: &AdminState, subject: &str) -> String {
    Explanation::of(admin, &request(subject), now()).text()
}

#[test]
fn nodes_that_list_the_same_are_shown_together_and_most_first() {
    let now = Instant::now();
    let reports = [report(1, &[1], now), report(2, &[2, 3], now), report(3, &[2, 3], now), report(4, &[], now)];
    let lists = shown_lists(&same_lists(&reports), now);
    let shown: Vec<_> = lists.iter().map(|list| (list.senders.len(), list.nodes.clone())).collect();
    assert_eq!(shown, [(2, vec![ip(2), ip(3)]), (1, vec![]), (1, vec![ip(1)])]);
    let many: Vec<_> = (0..200).map(|number| report(number, &[number], now)).collect();
    let lists = same_lists(&many);
    assert_eq!((lists.len(), shown_lists(&lists, now).len()), (200, 20));
    let same: Vec<_> = (0..200).map(|number| report(number, &(0..200).collect::<Vec<_>>(), now)).collect();
    let lists = shown_lists(&same_lists(&same), now);
    let [list] = lists.as_slice() else { panic!("{lists:?}") };
    assert_eq!((list.senders.len(), list.further_senders, list.nodes.len(), list.further_nodes), (100, 100, 100, 100));
}

#[test]
fn nodes_that_left_are_shown_for_an_hour() {
    let day = UNIX_EPOCH + Duration::from_secs(1_795_380_000);
    let change =
        |seconds, kind| Change { at: day - Duration::from_secs(seconds), kind, reason: Some("is away".into()) };
    let gone = |last| ChangeKind::Left { node: ip(last), state: NodeState::Up };
    let changes =
        vec![change(3601, gone(1)), change(3600, gone(2)), change(5, ChangeKind::Further(3)), change(1, gone(3))];
    let shown = left(changes, Now { instant: Instant::now(), day });
    assert_eq!(shown.iter().map(|change| change.node.unwrap()).collect::<Vec<_>>(), [ip(2), ip(3)]);
    assert!(shown[0].line().ends_with("10.0.0.2 left, was up: is away"), "{}", shown[0].line());
}

#[test]
fn a_zone_without_a_poller_is_explained_from_the_table() {
    let admin = admin_state(vec![known("a.example", &["10.0.0.1", "10.0.0.2"], false), waiting("b.example")]);
    let shown = text(&admin, "a.example");
    for part in [
        "a.example. is a zone (/etc/alternator-dns/config.toml:1)\n",
        "seeds     10.0.0.1, port 8000\n",
        "lists     no node has a report in force\n",
        "node      10.0.0.2 up since ",
        "DNS       A NOERROR, 1 of 2 addresses in an answer, TTL 4 s: 10.0.0.1, 10.0.0.2\n",
    ] {
        assert!(shown.contains(part), "{part:?}\n{shown}");
    }
    let shown = text(&admin, "b.example");
    assert!(shown.contains("A SERVFAIL (EDE 14), there is no address to answer with"), "{shown}");
    let shown = text(&admin, "10.0.0.2");
    assert!(shown.contains("a.example. (/etc/alternator-dns/config.toml:1, live): 10.0.0.2 is answered\n"), "{shown}");
}

#[test]
fn a_client_is_allowed_by_a_network_or_not_at_all() {
    let clients = |forward| NameClients {
        clients: AllowedClients::Networks(["10.0.0.0/24".parse().unwrap()].into()),
        key: "[server] clients".to_owned(),
        forward,
    };
    let limit = RateLimit { per_second: NonZeroU32::MIN, slip: 0, v4_prefix: 24, v6_prefix: 56 };
    let allowed = ClientExplanation::of(ip(9), &clients(None), Some(limit));
    assert!(allowed.may_ask && allowed.because == "[server] clients has 10.0.0.0/24", "{allowed:?}");
    let limited = "1 replies a second over UDP for all of 10.0.0.0/24; further queries get no reply";
    assert_eq!(allowed.rate_limit.as_deref(), Some(limited));
    let denied = ClientExplanation::of("192.0.2.1".parse().unwrap(), &clients(Some(AllowedClients::Any)), None);
    assert!(!denied.may_ask && denied.is_forwarded == Some(true), "{denied:?}");
    assert_eq!(clients(None).example(), ip(0));
}

#[test]
fn types_are_read_by_name_and_by_number() {
    for (text, shown) in [
        ("a", "A"),
        ("AAAA", "AAAA"),
        ("type65", "HTTPS"),
        ("TYPE65280", "TYPE65280"),
        ("any", "ANY"),
        ("TYPE0", "TYPE0"),
    ] {
        assert_eq!(text.parse::<RequestedType>().unwrap().to_string(), shown);
    }
    for bad in ["", "TYPE", "TYPE65536", "A A", "\u{e4}"] {
        assert!(bad.parse::<RequestedType>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_subject_and_type_is_read_or_refused(subject in "\\PC{0,40}|[a-z0-9.:-]{0,40}", query_type in "\\PC{0,12}|TYPE[0-9]{0,6}") {
        if let Ok(subject) = subject.parse::<ExplainedSubject>() {
            prop_assert_eq!(subject.to_string().parse::<ExplainedSubject>(), Ok(subject));
        }
        if let Ok(query_type) = query_type.parse::<RequestedType>() {
            prop_assert_eq!(query_type.to_string().parse::<RequestedType>(), Ok(query_type));
        }
    }

    #[test]
    fn an_explanation_shows_no_control_character(reason in any::<String>(), name in "[a-c]\\.example") {
        let entry = known("a.example", &["10.0.0.1"], true);
        entry.explain(Some(reason.as_str().into()), [(ip(1), reason.as_str().into())]);
        let shown = text(&admin_state(vec![entry]), &name);
        prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
    }
}
