//! One DNS resolver for many ScyllaDB Alternator clusters. This page says where to find what.
//!
//! A TOML file names zones. One poller per zone asks the cluster which nodes are alive (`GET /localnodes`) and
//! publishes them to the zone table; the server answers DNS queries from that table. An edit of the file changes the
//! zones without a restart.
//!
//! # Layers
//!
//! A module uses only modules of lower layers, and modules of one layer never import each other. The zone table is the
//! only interface between learning (`discovery`) and answering (`answer`). A test checks this.
//!
//! ```text
//! 7  main  cli  demo                       the commands
//! 6  supervisor                            binds, starts, applies configurations in two phases, drains
//! 5  reload  admin                         the file; HTTP and the control socket
//! 4  server (udp, tcp, tls, https, quic)   sockets
//! 3  discovery  forward  transfer  answer  decisions
//! 2  snapshot                              known nodes, last good configuration and drains, kept for the next start
//! 1  config  table  net                    the file; the zone table; HTTP client, certificates, watched files
//! 0  types  metrics  systemd  telemetry    shared types and plumbing
//! -  simulation                            a simulated cluster, used only by `demo` and tests
//! ```
//!
//! # A query
//!
//! 1. `server/udp.rs` receives a batch of datagrams on the worker's own socket (`server/udp/batch.rs`). `server/streams/`
//!    accepts connections (`accept.rs`), keeps their number within bounds (`limits.rs`), and reads messages from TCP and TLS
//!    (`connection.rs`) and from HTTP requests (`https/`); `server/encrypted.rs` has QUIC. All of them call
//!    `server/service.rs`, `Service::answer`.
//! 2. `answer/fast.rs` answers a plain A or AAAA query for a zone, from octets to octets. Every other message takes the
//!    slow path, which gives the same replies:
//! 3. `answer/query.rs` parses the message, and decides on silence, FORMERR, NOTIMP and BADVERS.
//! 4. `answer/resolve.rs` looks up the name in the table (`table/mod.rs`), and decides every other rcode.
//!    Where the zone has views (`table/views.rs`), `answer/zone_match.rs` finds the client's. A view is an entry of the
//!    table with a poller of its own that no name leads to; only addresses come from it.
//! 5. `answer/worker/` chooses the nodes (`shuffle.rs`: each node equally often, in an unpredictable order).
//! 6. `answer/records.rs` fills the records into a reply, which `answer/render.rs` writes: EDNS options, truncation,
//!    padding.
//!
//! `server/query_log.rs` logs queries while a command wants that.
//! `server/self_query.rs` sends such queries to this server itself, for `/serving` (`admin/serving.rs`).
//!
//! A query for a name outside all zones goes from `server/forward.rs` to `forward/`, if there is a `[forward]` section.
//! `answer/forwarded.rs` fills the upstream's records into the same kind of reply; where an alias leads into a zone, the
//! answer is `resolve`'s.
//!
//! A message of a secondary goes from `server/service.rs` to `transfer/`, which begins with a page of its own
//! (`transfer/mod.rs`): SOA, AXFR and IXFR for servers that fetch the zones. `supervisor/transferring.rs` starts the task that
//! notifies them, and watches the file of their key.
//!
//! # A poll
//!
//! 1. `discovery/poller.rs` is the loop of one zone. It feeds events to `membership` and performs the resulting
//!    actions.
//! 2. `discovery/poll/` runs one round: which nodes to ask (`candidates.rs`), and how many at a time (`hedge.rs`).
//! 3. `discovery/node/` sends a request to a node (`client.rs`), parses the list (`localnodes.rs`), and asks for the id of
//!    its cluster (`identity.rs`).
//! 4. `discovery/membership/` decides, without clock or socket: whether to accept the list (`evidence.rs`), which node
//!    is healthy (`health.rs`), and what to publish. The next section follows a list through it.
//! 5. `discovery/poller/reports.rs` asks nodes for their own lists and for the ids of their clusters, when `membership`
//!    says that they are due. `discovery/poll/shared.rs` lets zones that ask the same share the answers.
//! 6. `discovery/probes/` probes each listed node; `schedule.rs` decides when. The outcomes go to `membership`, as do the
//!    ids that come over probes' connections (`identities.rs`).
//! 7. `table/entry.rs` takes the nodes; `table/choice.rs` selects those to answer, and `table/answers.rs` holds what
//!    workers read. `table/drains.rs` has the nodes that commands take out of the answers for some time
//!    (`admin/drain.rs`). `table/description.rs` records reasons, times and the last probes beside them, for people.
//! 8. `snapshot/` writes the nodes to the state directory: `snapshot/file.rs` is the format, `directory.rs` the lock and
//!    the atomic write, and `mod.rs` decides when.
//!
//! # A list, and which nodes are of the cluster
//!
//! Two nodes are of one cluster when each lists the other. A node's report is what it lists itself, in every scope.
//!
//! 1. `discovery/poller/cycle.rs` passes a node's list to `membership` (`Event::Polled`). `membership/view.rs` keeps it,
//!    and names the nodes whose reports are needed first (`AskFirst`): the sender, nodes that are still to report, and
//!    nodes that the list leaves out.
//! 2. The poller asks these for their reports, and then for a decision (`Event::AskedFirst`). Apart from polls it asks
//!    every node and seed from time to time; `membership/view/reports.rs` says which are due.
//! 3. `membership/groups.rs`, `assess`, makes groups of the nodes that list each other, and finds the zone's group and a
//!    verdict for each node. The ids of clusters count here, and what other zones answer (`ownership.rs`).
//! 4. `membership/view/belonging.rs` puts the verdicts in force: which node is trusted, foreign or new, whether the name
//!    moves to the cluster of edited seeds, and what the log says. `start.rs` beside it says what a new poller knows: from
//!    an earlier poller, or from the snapshot.
//! 5. `membership/view.rs` accepts the list or sets it aside; `membership/mod.rs` publishes if the result differs.
//!
//! `membership/model_check/` runs the same code in a simulated world: `world.rs` has the true clusters, `driver.rs`
//! performs the actions in place of the poller, `stories.rs` checks known courses of events, and `search.rs` all short
//! ones and long random ones.
//!
//! Host names among seeds are looked up in `discovery/seeds/`, so that a resolver that hangs delays no poll.
//!
//! # An edit of the file
//!
//! 1. `reload/watch.rs` sees that something changed; `reload/files.rs` reads the file and those that it includes
//!    (`config/include.rs`), with a deadline (`net/watched.rs`); `reload/settle.rs` decides when they are stable.
//! 2. `config/` parses it: `config/parts.rs` cuts it into zones, `config/file.rs` walks their tables, `*_keys.rs` take the
//!    keys, `value.rs` reads values, and
//!    `diagnostic.rs` reports what is wrong, with line and column; `hints.rs` says what was probably meant. `syntax.rs`
//!    refuses large files that are no configuration before they are parsed whole.
//! 3. `supervisor/apply.rs` puts it in force in two phases: prepare binds and reads everything and may fail; commit
//!    cannot fail.
//! 4. `supervisor/plan.rs` says which zones are added, removed or changed; `supervisor/pollers.rs` starts and stops
//!    pollers; `supervisor/listeners.rs` binds new sockets and drains old ones.
//!    `supervisor/file_check.rs` says for `check` what is wrong with the files that it names, and `supervisor/expiry.rs`
//!    when their certificates expire.
//! 5. `table/mod.rs` gets the new table. `admin/` shows the result; `admin/control.rs` returns it to `alternator-dns
//!    reload`.
//!
//! `cli/plan.rs` says before an edit what it would change: it reads the configuration in force from the server
//! (`admin/running.rs`), and compares it with the file.
//!
//! A start takes back the sockets that systemd has kept from the process before it (`systemd/sockets.rs`, `server/kept.rs`):
//! what clients have sent meanwhile waits in them. It reads the file in the same way. If it is refused,
//! `supervisor/last_good.rs` starts with the last good configuration, which `snapshot/last_good.rs` keeps, and the file is
//! watched as usual.
//!
//! `.github/CONTRIBUTING.md` says where to change what, and how to run each test.

#![forbid(unsafe_code)]

pub mod admin;
pub mod answer;
pub mod cli;
pub mod config;
pub mod demo;
pub mod discovery;
pub mod forward;
pub mod metrics;
pub mod net;
pub mod reload;
pub mod server;
pub mod simulation;
pub mod snapshot;
pub mod supervisor;
pub mod systemd;
pub mod table;
pub mod telemetry;
pub mod transfer;
pub mod types;

#[cfg(test)]
mod test_directory;
