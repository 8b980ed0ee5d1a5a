//! A hidden primary: gives the zones to secondaries (NSD, Knot, BIND), which serve them to the world.
//!
//! 1. `answer.rs` answers SOA, AXFR and IXFR queries of secondaries, allowed by address and signature (`tsig.rs`). `wire.rs`
//!    reads messages, `render.rs` writes them.
//! 2. `zone.rs` makes the records of a zone from what is answered for it (`table`), with as many addresses as the zone's
//!    `max_addresses` (`selection.rs`); and those of the catalog zone, which lists all zones.
//! 3. `notifier.rs` is the task that sends NOTIFY when a serial grows. `progress.rs` decides when, and knows what each
//!    secondary has; `queue.rs` has the open notifications of one secondary by time, `notify.rs` its messages.
//! 4. `primary.rs` holds the configuration in force.

mod answer;
mod notifier;
mod notify;
mod primary;
mod progress;
mod queue;
mod render;
mod selection;
mod tsig;
mod wire;
mod zone;

#[doc(hidden)]
pub use self::notify::is_notify_reply;
pub use self::{
    answer::{Sender, TransferAnswer, TransferMessages},
    notifier::Notifier,
    primary::{Secondary, Transfers, Wanted},
    progress::SecondaryState,
    tsig::{SECRET_OCTETS_MAX, SecretError, TsigKey},
};
