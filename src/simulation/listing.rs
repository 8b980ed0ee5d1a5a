//! Whom a node lists: the nodes of a datacenter and rack, on its own side of a split.

use std::net::IpAddr;

use super::State;

/// Where a node stands, and what of it its peers see.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) datacenter: String,
    pub(super) rack: String,
    /// Nodes see each other only within a side; 0 is everybody's unless a split says otherwise.
    pub(super) side: usize,
    /// Peers list it although it does not run: it joins, or crashed a moment ago.
    pub(super) announced: bool,
    /// It answers as if the request had no parameters, as servers did before 2025.1.
    pub(super) ignores_parameters: bool,
}

impl Default for Placement {
    /// Alone in the world, a real node calls its datacenter and rack like this.
    fn default() -> Self {
        Self {
            datacenter: "datacenter1".into(),
            rack: "rack1".into(),
            side: 0,
            announced: false,
            ignores_parameters: false,
        }
    }
}

impl State {
    /// What a node lists to this request, in order of addresses. A node always sees itself, and when it is `isolated`
    /// nobody else.
    ///
    /// A datacenter or rack that nobody has is no error: nobody is listed. Without a datacenter the node's own counts.
    pub(super) fn listed_by(&self, node: IpAddr, target: &str, isolated: bool) -> Vec<IpAddr> {
        let nodes = self.lock();
        let Some(asked) = nodes.get(&node).map(|record| &record.placement) else { return Vec::new() };
        let parameter = |name| (!asked.ignores_parameters).then(|| parameter(target, name)).flatten();
        let datacenter = parameter("dc").unwrap_or_else(|| asked.datacenter.clone());
        let rack = parameter("rack");
        let listed = nodes.iter().filter(|(address, other)| {
            let there = &other.placement;
            let seen = **address == node || (!isolated && there.side == asked.side);
            seen && (other.running.is_some() || there.announced)
                && there.datacenter == datacenter
                && rack.as_ref().is_none_or(|rack| there.rack == *rack)
        });
        listed.map(|(&address, _)| address).collect()
    }
}

/// The first value of a parameter; an empty one is none.
fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter(|(key, _)| decode(key) == name)
        .map(|(_, value)| decode(value))
        .next()
        .filter(|value| !value.is_empty())
}

/// Percent-encoded text; a plus is a space, and what is no encoding stands for itself.
fn decode(text: &str) -> String {
    let (mut octets, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        let escaped = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        octets.push(escaped.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_empty_ones_are_absent() {
        let target = "/localnodes?rack=&dc=a%20b+c%26d%2525%C3%A4%zz%4&dc=second";
        assert_eq!(parameter(target, "dc").as_deref(), Some("a b c&d%25\u{e4}%zz%4"));
        assert_eq!(parameter(target, "rack"), None);
        assert_eq!(parameter("/localnodes", "dc"), None);
        assert_eq!(parameter("/localnodes?dc", "dc"), None);
    }
}
