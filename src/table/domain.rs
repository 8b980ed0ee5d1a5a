//! A domain's place in the table: a name that is delegated to us and has no nodes of its own.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::answers::{NameServers, next_serial};
use crate::types::{AllowedClients, Ttl, ZoneName};

/// What an operator decides about a domain's answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainSettings {
    /// SOA minimum, which is the TTL of negative answers (RFC 2308, 4).
    pub negative_ttl: Ttl,
    /// Who serves the domain; the first is the SOA's MNAME.
    pub name_servers: NameServers,
    /// Who may ask.
    pub clients: AllowedClients,
}

impl DomainSettings {
    /// Settings for tests of the layers above.
    #[doc(hidden)]
    pub fn example() -> Self {
        const FOUR: Ttl = Ttl::from_secs(4).expect("four seconds are less than a day");
        Self { negative_ttl: FOUR, name_servers: NameServers::default(), clients: AllowedClients::Any }
    }
}

/// Everything that a question about one domain needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainAnswers {
    /// What the operator decided.
    pub settings: DomainSettings,
    /// SOA serial (RFC 1982): grows with every change of name servers.
    pub serial: u32,
}

/// A domain that is configured. It outlives reloads that keep the domain.
#[derive(Debug)]
pub struct DomainEntry {
    name: ZoneName,
    answers: ArcSwap<DomainAnswers>,
}

impl DomainEntry {
    /// A domain with these settings; zones may hang below it. `now` is the unix time in seconds.
    pub fn new(name: ZoneName, settings: DomainSettings, now: u32) -> Self {
        Self { name, answers: ArcSwap::from_pointee(DomainAnswers { settings, serial: now }) }
    }

    /// The domain's own name.
    pub fn name(&self) -> &ZoneName {
        &self.name
    }

    /// What is answered now.
    pub fn answers(&self) -> Guard<Arc<DomainAnswers>> {
        self.answers.load()
    }

    /// Puts other settings in force; `now` is the unix time in seconds.
    pub fn configure(&self, settings: &DomainSettings, now: u32) {
        self.answers.rcu(|answers| {
            let same = answers.settings.name_servers == settings.name_servers;
            let serial = if same { answers.serial } else { next_serial(answers.serial, now) };
            DomainAnswers { settings: settings.clone(), serial }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_grows_with_the_name_servers_alone() {
        let domain = DomainEntry::new(ZoneName::parse("alt.example").unwrap(), DomainSettings::example(), 1000);
        let clients = DomainSettings { clients: AllowedClients::Networks(Arc::new([])), ..DomainSettings::example() };
        domain.configure(&clients, 2000);
        assert_eq!((domain.answers().serial, &domain.answers().settings), (1000, &clients));
        let servers = NameServers::new([(ZoneName::parse("ns.example").unwrap(), vec![])]);
        domain.configure(&DomainSettings { name_servers: servers.clone(), ..clients.clone() }, 3000);
        assert_eq!((domain.answers().serial, &domain.answers().settings.name_servers), (3000, &servers));
        domain.configure(&clients, 500);
        assert_eq!(domain.answers().serial, 3001, "the clock went back");
    }
}
