//! The upstreams in force, and the thread that waits for them.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};

use crate::{
    config::{Forward, Upstream},
    forward::Upstreams,
    metrics::ProcessCounters,
    server::Forwarder,
    table::SharedTable,
};

/// Passes on what `[forward]` says.
pub(super) struct Forwarding {
    forwarder: Forwarder,
    /// Empty: nobody is asked.
    in_force: Vec<Upstream>,
}

impl Forwarding {
    /// Asks nobody yet. Whoever waits for upstreams does so on this runtime.
    pub(super) fn start(
        table: SharedTable,
        counters: Arc<ProcessCounters>,
        runtime: &Handle,
        failures: UnboundedSender<String>,
    ) -> Self {
        let (forwarder, task) = Forwarder::new(table, counters);
        task.start(runtime, failures);
        Self { forwarder, in_force: Vec::new() }
    }

    /// Where listeners leave questions.
    pub(super) fn forwarder(&self) -> Forwarder {
        self.forwarder.clone()
    }

    /// Has the upstreams asked that are wanted, if any. Those that stay the same keep what they have said.
    pub(super) fn adopt(&mut self, wanted: Option<&Forward>) {
        let wanted = wanted.map_or(&[][..], |forward| &forward.upstreams);
        if wanted == self.in_force {
            return;
        }
        if wanted.is_empty() {
            tracing::info!("names of no zone are no longer passed on");
        } else {
            let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            tracing::info!(upstreams = names.join(" "), "names of no zone are passed on");
        }
        self.forwarder.replace_upstreams((!wanted.is_empty()).then(|| Upstreams::new(wanted)));
        self.in_force = wanted.to_vec();
    }
}
