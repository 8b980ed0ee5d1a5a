//! What the command `plan` needs of the running server: the configuration in force, and what is known of a zone. On the
//! control socket alone.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{Query, State},
    middleware,
    response::Response,
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{
    AdminState, Pages,
    client::ServerAddress,
    control::{ControlError, RunningServer},
    history::{Format, refusal, respond},
    http,
};
use crate::{
    table::{Knowledge, Known, Node, ZoneDrains},
    types::{NodeSet, NodeState, ZoneName, ZoneState},
};

const CONFIGURATION_PATH: &str = "/running/configuration";
const ZONE_PATH: &str = "/running/zone";

/// The configuration in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RunningConfiguration {
    /// The server.
    pub server: RunningServer,
    /// Its files, as they were read.
    pub files: Vec<RunningFile>,
    /// Why the file as it is now was refused.
    pub error: Option<String>,
}

/// A file of the configuration in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RunningFile {
    /// Where it was.
    pub path: PathBuf,
    /// What it contained.
    pub text: String,
}

/// What is known of a zone, in a form that can be sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RunningZone {
    /// The addresses of its seeds, while no node is known.
    seeds: Option<Vec<IpAddr>>,
    /// Its nodes; `None`: no node is known.
    nodes: Option<Vec<RunningNode>>,
    state: String,
    expired: bool,
    /// Its nodes that are drained, each with the Unix second at which that ends.
    #[serde(default)]
    drained: Vec<(IpAddr, u64)>,
}

/// A node of a zone.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct RunningNode {
    address: IpAddr,
    state: String,
    slow: bool,
    ever_up: bool,
    pending: bool,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    zone: String,
}

/// The routes, for the control socket.
pub fn routes(admin: AdminState) -> Router {
    Router::new()
        .route(CONFIGURATION_PATH, get(configuration))
        .route(ZONE_PATH, get(zone))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(Pages::new(admin))
}

async fn configuration(State(pages): State<Pages>) -> Response {
    let document = pages.render(|admin| {
        let status = admin.config.load();
        let files = status.config.sources.iter();
        RunningConfiguration {
            server: RunningServer::this(&status.path),
            files: files.map(|file| RunningFile { path: file.path.clone(), text: file.text.clone() }).collect(),
            error: status.error.clone(),
        }
    });
    respond(Format::Json, &document.await, String::new)
}

async fn zone(State(pages): State<Pages>, Query(Parameters { zone }): Query<Parameters>) -> Response {
    let Ok(name) = ZoneName::parse(&zone) else { return refusal("the zone's name is wrong") };
    let known = move |admin: &AdminState| {
        let entry = admin.table.snapshot().zone(&name)?.clone();
        let answers = entry.answers();
        Some(RunningZone::of(&answers.knowledge, &answers.drains))
    };
    let document = pages.render(known);
    match document.await {
        Some(document) => respond(Format::Json, &document, String::new),
        None => refusal("no zone has this name"),
    }
}

impl RunningZone {
    fn of(knowledge: &Knowledge, drains: &ZoneDrains) -> Self {
        let seconds = |end: SystemTime| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let drained = drains.iter().map(|(node, end)| (node, seconds(end))).collect();
        let node = |node: &Node| RunningNode {
            address: node.address,
            state: node.state.word().to_owned(),
            slow: node.slow,
            ever_up: node.ever_up,
            pending: node.pending,
        };
        match knowledge {
            Knowledge::Waiting(seeds) => Self {
                seeds: seeds.as_ref().map(|seeds| seeds.as_slice().to_vec()),
                nodes: None,
                state: ZoneState::Waiting.word().to_owned(),
                expired: false,
                drained,
            },
            Knowledge::Known(known) => Self {
                seeds: None,
                nodes: Some(known.nodes.iter().map(node).collect()),
                state: known.state.word().to_owned(),
                expired: known.expired,
                drained,
            },
        }
    }

    /// The nodes that are taken out of the answers.
    pub fn drains(&self) -> ZoneDrains {
        let end = |seconds: u64| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
        self.drained.iter().map(|(node, seconds)| (*node, end(*seconds))).collect()
    }

    /// What the server knows. A state that this version does not know is taken for the most cautious one.
    pub fn knowledge(self) -> Knowledge {
        let Some(nodes) = self.nodes else { return Knowledge::Waiting(self.seeds.and_then(NodeSet::new)) };
        let state = ZoneState::ALL.into_iter().find(|state| state.word() == self.state).unwrap_or(ZoneState::Stale);
        let mut nodes: Vec<Node> = nodes.into_iter().map(RunningNode::node).collect();
        nodes.sort_unstable_by_key(|node| node.address);
        Knowledge::Known(Known { nodes: nodes.into(), state, expired: self.expired })
    }
}

impl RunningNode {
    fn node(self) -> Node {
        let Self { address, state, slow, ever_up, pending } = self;
        let state = NodeState::ALL.into_iter().find(|known| known.word() == state).unwrap_or(NodeState::New);
        Node { address, state, slow, ever_up, pending }
    }
}

/// The configuration that the server at a control socket has in force.
///
/// # Errors
/// No server can be reached, or it sends something else.
pub async fn running_configuration(socket: &ServerAddress) -> Result<RunningConfiguration, ControlError> {
    read(socket, CONFIGURATION_PATH, &[]).await
}

/// What that server knows of a zone.
///
/// # Errors
/// No server can be reached, it sends something else, or it has no such zone.
pub async fn running_zone(socket: &ServerAddress, zone: &ZoneName) -> Result<RunningZone, ControlError> {
    read(socket, ZONE_PATH, &[("zone", &zone.to_string())]).await
}

async fn read<T: serde::de::DeserializeOwned>(
    socket: &ServerAddress,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T, ControlError> {
    let text = socket.read(path, parameters).await?;
    serde_json::from_str(&text)
        .map_err(|error| ControlError::Unable(format!("cannot read what {socket} sends: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sent_of_a_zone_is_read_again(
            nodes in prop::collection::btree_map(any::<u32>(), (0..NodeState::ALL.len(), any::<[bool; 3]>()), 0..6),
            state in 0..ZoneState::ALL.len(),
            expired in any::<bool>(),
            waiting in any::<bool>(),
        ) {
            let address = |bits: u32| IpAddr::V4(bits.into());
            let listed = nodes.iter().map(|(bits, (state, [slow, ever_up, pending]))| Node {
                address: address(*bits), state: NodeState::ALL[*state], slow: *slow, ever_up: *ever_up, pending: *pending,
            });
            let knowledge = if waiting {
                Knowledge::Waiting(NodeSet::new(nodes.keys().copied().map(address)))
            } else {
                Knowledge::Known(Known { nodes: listed.collect(), state: ZoneState::ALL[state], expired })
            };
            let ends = nodes.keys().map(|bits| (address(*bits), UNIX_EPOCH + Duration::from_secs(u64::from(*bits))));
            let drains: ZoneDrains = ends.collect();
            let sent = serde_json::to_string(&RunningZone::of(&knowledge, &drains)).unwrap();
            let read = serde_json::from_str::<RunningZone>(&sent).unwrap();
            prop_assert_eq!(read.drains(), drains);
            prop_assert_eq!(read.knowledge(), knowledge);
        }

        #[test]
        fn any_reply_is_read_or_refused(text in "\\PC{0,60}|[{}\\[\\]\":,a-z0-9]{0,60}") {
            let _ = serde_json::from_str::<RunningZone>(&text).map(|zone| (zone.drains(), zone.knowledge()));
        }
    }
}
