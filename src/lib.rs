//! One DNS resolver for many ScyllaDB Alternator clusters. This page is the map of the house.
//!
//! A TOML file names zones. One poller per zone asks the cluster who is alive (`GET /localnodes`) and feeds the
//! zone table; the DNS handler answers from that table. Editing the file changes the zones without a restart.
//!
//! Rooms lie on floors. A room uses only rooms on lower floors, rooms on one floor never meet, and the zone table
//! is the only door between learning and answering. `tests/blackbox/floors.rs` keeps it so.
//!
//! ```text
//! 6  main  cli  demo                     says when
//! 5  supervisor                          conducts: binds, starts, applies plans, drains
//! 4  reload  admin                       the doors: the file, HTTP
//! 3  server (udp, tcp)                   touches sockets
//! 2  discovery  forward   answer         decides
//! 1  config               table          knows
//! 0  types  metrics  systemd  telemetry  simulation   the words
//! ```
//!
//! Read it from below: [`types`] for the words, [`table`] for what is shared, [`discovery`] for how it is learnt,
//! [`answer`] for how it is told, [`forward`] for what others are asked about names of no zone, [`server`] for how it travels, then [`reload`] and [`supervisor`].

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
pub mod types;
