//! The upstreams in force, and the thread that waits for them.

use std::sync::Arc;

use rustls::RootCertStore;
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};

use crate::{
    config::{Forward, Upstream},
    forward::Upstreams,
    metrics::ProcessCounters,
    net::roots::SystemRoots,
    server::Forwarder,
    table::SharedTable,
};

/// Forwards names of no zone as `[forward]` says.
pub(super) struct Forwarding {
    forwarder: Forwarder,
    /// Empty: names of no zone are refused.
    in_force: Vec<Upstream>,
    roots: SystemRoots,
}

/// Upstreams that are set up and not asked yet.
pub(super) enum PreparedUpstreams {
    /// Those in force stay.
    Unchanged,
    /// Names of no zone are to be refused.
    Off,
    /// Others are asked.
    New { upstreams: Box<Upstreams>, wanted: Vec<Upstream> },
}

impl Forwarding {
    /// Forwards nothing yet. What waits for upstreams does so on this runtime.
    pub(super) fn start(
        table: SharedTable,
        counters: Arc<ProcessCounters>,
        runtime: &Handle,
        failures: UnboundedSender<String>,
    ) -> Self {
        let (forwarder, task) = Forwarder::new(table, counters);
        task.start(runtime, failures);
        Self { forwarder, in_force: Vec::new(), roots: SystemRoots::default() }
    }

    /// Where listeners leave questions.
    pub(super) fn forwarder(&self) -> Forwarder {
        self.forwarder.clone()
    }

    /// Sets up the upstreams that are wanted. Nothing changes before [`Self::commit`].
    pub(super) async fn prepare(&self, wanted: Option<&Forward>) -> PreparedUpstreams {
        let wanted = wanted.map_or(&[][..], |forward| &forward.upstreams);
        if wanted == self.in_force {
            return PreparedUpstreams::Unchanged;
        }
        if wanted.is_empty() {
            return PreparedUpstreams::Off;
        }
        let mut roots = Arc::new(RootCertStore::empty());
        if wanted.iter().any(|upstream| upstream.tls_name.is_some()) {
            // Without authorities every upstream with TLS fails. The configuration is not at fault.
            match self.roots.get().await {
                Ok(system) => roots = system,
                Err(error) => tracing::warn!("{error}, so no upstream can be asked over TLS"),
            }
        }
        PreparedUpstreams::New { upstreams: Box::new(Upstreams::new(wanted, roots)), wanted: wanted.to_vec() }
    }

    /// Asks the prepared upstreams from now on. Those that stay the same keep their cache.
    pub(super) fn commit(&mut self, prepared: PreparedUpstreams) {
        match prepared {
            PreparedUpstreams::Unchanged => {}
            PreparedUpstreams::Off => {
                tracing::info!("names of no zone are no longer forwarded");
                self.forwarder.replace_upstreams(None);
                self.in_force.clear();
            }
            PreparedUpstreams::New { upstreams, wanted } => {
                let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
                tracing::info!(upstreams = names.join(" "), "names of no zone are forwarded");
                self.forwarder.replace_upstreams(Some(*upstreams));
                self.in_force = wanted;
            }
        }
    }
}
