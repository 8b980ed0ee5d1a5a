//! What a node lists: the nodes of a datacenter and rack, on its own side of a split.

use std::net::IpAddr;

use super::State;

/// A node's place in the cluster, and how its peers see it.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) datacenter: String,
    pub(super) rack: String,
    /// Nodes see only those of their own side; without a split all are on side 0.
    pub(super) side: usize,
    /// Peers list it although it does not run: it is joining, or has just crashed.
    pub(super) announced: bool,
    /// It ignores the parameters of requests, as servers before 2025.1 do.
    pub(super) ignores_parameters: bool,
}

impl Default for Placement {
    /// The names that a real node has by default.
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
    /// The nodes that `node` lists for this request, in order of addresses. An `isolated` node lists only itself.
    ///
    /// An unknown datacenter or rack gives an empty list. The default datacenter is the node's own.
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

/// The first value of a parameter; `None` when it is empty.
fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_empty_ones_count_as_absent() {
        let target = "/localnodes?rack=&dc=a%20b+c%26d%2525%C3%A4%zz%4&dc=second";
        assert_eq!(parameter(target, "dc").as_deref(), Some("a b c&d%25\u{e4}%zz%4"));
        assert_eq!(parameter(target, "rack"), None);
        assert_eq!(parameter("/localnodes", "dc"), None);
        assert_eq!(parameter("/localnodes?dc", "dc"), None);
    }
}
