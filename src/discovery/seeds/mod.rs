//! A zone's seeds as addresses.

mod lookup;

use std::{net::IpAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

use self::lookup::Host;
pub use self::lookup::{AGE_MAX, HostLookup};
use crate::types::{Seed, canonical, is_publishable};

/// The seeds of one zone, in the order of the file; host names among them are looked up elsewhere.
#[derive(Clone, Debug)]
pub struct Seeds(Vec<Source>);

#[derive(Clone, Debug)]
enum Source {
    Address(IpAddr),
    Host(Host),
}

impl Seeds {
    /// Subscribes to the host names among the seeds. Call it on a runtime.
    pub fn new(seeds: &[Seed], lookup: &HostLookup) -> Self {
        let source = |seed: &Seed| match seed {
            Seed::Address(address) => Source::Address(*address),
            Seed::Host(name) => Source::Host(lookup.subscribe(name)),
        };
        Self(seeds.iter().map(source).collect())
    }

    /// The addresses known now, each once, in the order of the file.
    pub fn addresses(&mut self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        let mut add = |address| {
            let address = canonical(address);
            if is_publishable(address) && !addresses.contains(&address) {
                addresses.push(address);
            }
        };
        for source in &mut self.0 {
            match source {
                Source::Address(address) => add(*address),
                Source::Host(host) => host.addresses().iter().copied().for_each(&mut add),
            }
        }
        addresses
    }

    /// Asks for another look-up of each name whose last one ended at least `age` ago. Returns at once.
    pub fn freshen(&self, age: Duration) {
        self.hosts().for_each(|host| host.freshen(age));
    }

    /// Why there may be no address, as a sentence.
    pub fn refusal(&self) -> String {
        self.hosts().find_map(Host::error).unwrap_or_else(|| "the seeds' names are still being looked up".into())
    }

    /// A sentence for each name whose last look-up failed, in the order of the file.
    pub fn unresolved(&self) -> Vec<String> {
        self.hosts().filter_map(Host::error).collect()
    }

    /// Returns when a look-up has ended since [`Seeds::addresses`] was last called; never without host names.
    pub async fn changed(&mut self) {
        let hosts =
            self.0.iter_mut().filter_map(|source| if let Source::Host(host) = source { Some(host) } else { None });
        let mut changes: FuturesUnordered<_> = hosts.map(Host::changed).collect();
        if changes.next().await.is_none() {
            std::future::pending().await
        }
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.0.iter().filter_map(|source| if let Source::Host(host) = source { Some(host) } else { None })
    }
}

/// The addresses among the seeds that need no look-up.
pub fn literal(seeds: &[Seed]) -> impl Iterator<Item = IpAddr> {
    let address = |seed: &Seed| if let Seed::Address(address) = seed { Some(canonical(*address)) } else { None };
    seeds.iter().filter_map(address).filter(|&address| is_publishable(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ZoneName;

    #[tokio::test(start_paused = true)]
    async fn names_and_addresses_keep_the_order_of_the_file() {
        let lookup = HostLookup::with(|_| Ok(vec!["10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()]));
        let address = |text: &str| Seed::Address(text.parse().unwrap());
        let file = [
            address("10.0.0.9"),
            Seed::Host(ZoneName::parse("scylla.internal").unwrap()),
            address("::ffff:10.0.0.1"),
            address("0.0.0.0"),
            address("::1"),
        ];
        let mut seeds = Seeds::new(&file, &lookup);
        assert_eq!(seeds.refusal(), "the seeds' names are still being looked up");
        let texts = |addresses: Vec<IpAddr>| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(seeds.addresses()), ["10.0.0.9", "10.0.0.1", "::1"]);
        seeds.changed().await;
        assert_eq!(texts(seeds.addresses()), ["10.0.0.9", "10.0.0.1", "10.0.0.2", "::1"]);
        assert_eq!(texts(literal(&file).collect()), ["10.0.0.9", "10.0.0.1", "::1"]);
    }
}
