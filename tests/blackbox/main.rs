//! Black-box tests: the real binary, on ports of its own, against simulated clusters over real HTTP on 127.0.0.x.
//!
//! Nothing sleeps for luck: every test waits on a condition with a deadline and asserts on what a client sees.

#![allow(clippy::unwrap_used)]

mod support;

mod access;
mod admin;
mod answers;
mod certificate_files;
mod chaos;
mod clocks;
mod cluster_ids;
mod commands;
mod drain;
mod encrypted;
mod explain;
mod foreign;
mod forward;
mod hanging_files;
mod health;
mod history;
mod identity;
mod include;
mod isolation;
mod last_good;
mod learning;
mod leaving;
mod lifecycle;
mod listeners;
mod payloads;
mod plan;
mod query_log;
mod reasons;
mod reload;
mod restarts;
mod rules;
mod scopes;
mod serving;
mod shipped;
mod shortage;
mod snapshot;
mod status;
mod stories;
mod streams;
mod tls;
mod transfer;
mod views;
mod watchdog;

use self::support::{ca, daemon, dns, files, http, http2, observe, service_manager, tls_client, upstream, wait};
