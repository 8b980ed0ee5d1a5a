//! Puts a configuration in force in two phases: everything that may fail comes first and changes nothing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{
    StartError, Supervisor,
    admin_listener::PreparedAdmin,
    certificates::PreparedCertificate,
    cookies::PreparedSecrets,
    forwarding::PreparedUpstreams,
    listeners::{PreparedSockets, Wanted},
    plan::{Plan, Polling, plan},
    pollers::{PollerChanges, PollerStart},
    settings::{domain, entries, limits, server, views},
    snapshot_settings::{AT_NEXT_START, SnapshotSettings},
    transferring::PreparedKey,
};
use crate::{
    admin::ServingCriteria,
    config::{Config, Zone},
    discovery::Start,
    table::{ZoneEntry, ZoneTable},
    types::{ZoneName, unix_now},
};

/// What is polled before the first configuration is in force.
static NO_ZONES: BTreeMap<ZoneName, Zone> = BTreeMap::new();

/// A configuration with everything that it needs: its sockets are bound and its files are read. Dropped, it leaves no
/// trace; put in force, it cannot fail.
pub(super) struct Prepared {
    config: Arc<Config>,
    plan: Plan,
    /// The same for what is polled for views.
    view_plan: Plan,
    sockets: PreparedSockets,
    admin: PreparedAdmin,
    secrets: PreparedSecrets,
    certificate: PreparedCertificate,
    upstreams: PreparedUpstreams,
    transfer_key: PreparedKey,
}

impl Prepared {
    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }
}

impl Supervisor {
    /// Binds and reads everything that a configuration needs. It changes nothing, and may be dropped at any moment.
    pub(super) async fn prepare(&self, config: Arc<Config>) -> Result<Prepared, StartError> {
        let wanted = &config.server;
        let admin = self.admin.prepare(wanted.admin, &self.listeners)?;
        let secrets = self.cookies.prepare(wanted.cookie_secret_file.as_deref()).await?;
        let certificate = self.certificates.prepare(wanted.encryption.as_ref()).await?;
        let upstreams = self.forwarding.prepare(config.forward.as_ref()).await;
        let transfer_key = self.transferring.prepare(config.transfer.as_ref()).await?;
        // The last that can fail: an address beside the wildcard of its port gets its questions from now on, and must be
        // served.
        let sockets = self.listeners.prepare(wanted, self.admin.address())?;
        let in_force = self.in_force.as_deref();
        let view_plan = plan(in_force.map_or(&NO_ZONES, |config| &config.views), &config.views);
        let plan = plan(in_force.map_or(&NO_ZONES, |config| &config.zones), &config.zones);
        Ok(Prepared { plan, view_plan, sockets, admin, secrets, certificate, upstreams, transfer_key, config })
    }

    /// Puts a prepared configuration in force. Returns what has changed, in a sentence.
    pub(super) async fn commit(&mut self, prepared: Prepared) -> String {
        let Prepared { config, plan, view_plan, sockets, admin, secrets, certificate, upstreams, transfer_key } =
            prepared;
        let table = self.table_of(&config, &plan);
        let drains = self.admin.state().drains;
        drains.apply_to(&table);
        self.certificates.commit(certificate, &mut self.tasks);
        self.cookies.commit(secrets, &mut self.tasks);
        let limits = self.descriptors.cut(limits(&config.server), &config, self.listeners.limits().max_connections);
        self.listeners.limit(limits);
        // A poller begins by publishing its seeds, and no question may see a new zone before that.
        self.pollers.apply(poller_changes(&config, (&plan, &view_plan), &table)).await;
        // Upstreams are there before questions go to them, and until none go.
        let last = if matches!(upstreams, PreparedUpstreams::Off) {
            Some(upstreams)
        } else {
            self.forwarding.commit(upstreams);
            None
        };
        self.table.replace(table);
        // A command may have changed them meanwhile.
        drains.apply();
        if let Some(upstreams) = last {
            self.forwarding.commit(upstreams);
        }
        let addresses = Wanted { listen: &config.server.listen, encryption: config.server.encryption.as_ref() };
        for closed in self.listeners.commit(addresses, sockets, &self.certificates.in_force()) {
            self.draining.spawn(closed.drain());
        }
        let listen = self.addresses();
        let zones = (&self.table, self.snapshot.as_ref());
        self.transferring.commit(transfer_key, (&config, &listen), zones, &mut self.tasks);
        self.admin.require(serving_criteria(self.addresses(), &config));
        self.watched_certificates.replace(&config);
        self.admin.allow_hosts(&config.server.admin_hosts);
        self.admin.commit(admin, &mut self.tasks);
        if let Some(snapshot) = &self.snapshot {
            snapshot.keep_configuration(&config.sources);
        }
        let changes = self.configurations.applied(self.in_force.as_deref(), &config).to_string();
        let same_snapshot = self.snapshot_settings == SnapshotSettings::of(&config.server);
        self.in_force = Some(config);
        if !same_snapshot {
            tracing::warn!("{AT_NEXT_START}");
        }
        let parts = [plan.to_string(), changes, if same_snapshot { String::new() } else { AT_NEXT_START.to_string() }];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// The table of a configuration; entries of zones that stay get their new settings at once.
    fn table_of(&self, config: &Config, plan: &Plan) -> ZoneTable {
        let before = self.table.snapshot();
        let now = unix_now();
        let first_serial = |zone: &ZoneName| match &self.snapshot {
            Some(snapshot) => snapshot.first_serial(zone, now),
            None => now,
        };
        let zones = entries(&before, self.in_force.as_deref(), config, plan, (now, &first_serial));
        let domains = config.server.domains.iter().map(|name| domain(&before, name, config, now));
        let table = ZoneTable::with_domains(zones, domains).with_views(views(&before, config, now));
        table.with_server(server(&before, config, self.cookies.in_force()))
    }
}

fn serving_criteria(listen: Vec<SocketAddr>, config: &Config) -> ServingCriteria {
    let shortest_refresh = config.zones.values().map(|zone| zone.refresh).min();
    ServingCriteria::new(listen, shortest_refresh.unwrap_or_default())
}

fn poller_changes(config: &Config, (zones, views): (&Plan, &Plan), table: &ZoneTable) -> PollerChanges {
    let mut started = poller_starts(zones, &config.zones, |name| table.zone(name).cloned());
    let view_entries = table.view_entries();
    started.extend(poller_starts(views, &config.views, |key| view_entries.get(key).map(|entry| Arc::clone(entry))));
    PollerChanges {
        zones: config.zones.len() + config.views.len(),
        removed: [zones.removed.clone(), views.removed.clone()].concat(),
        started,
    }
}

/// The pollers that a plan for these zones starts.
fn poller_starts(
    plan: &Plan,
    zones: &BTreeMap<ZoneName, Zone>,
    entry: impl Fn(&ZoneName) -> Option<Arc<ZoneEntry>>,
) -> Vec<PollerStart> {
    let added = plan.added.iter().map(|name| (name, Start::Continue));
    let changed = plan.changed.iter().filter_map(|(name, polling)| match polling {
        Polling::Keep => None,
        Polling::Resume => Some((name, Start::Continue)),
        Polling::NewClusterId => Some((name, Start::NewClusterId)),
        Polling::NewSeeds => Some((name, Start::NewSeeds)),
        Polling::NewCluster => Some((name, Start::NewCluster)),
    });
    let started = added.chain(changed).filter_map(|(name, start)| {
        let zone = Arc::new(zones.get(name)?.clone());
        Some(PollerStart { zone, entry: entry(name)?, start })
    });
    started.collect()
}
