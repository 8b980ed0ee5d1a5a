//! How a probe ended: what it says to the policy, and what it says to people.

use std::time::Duration;

use super::super::membership::ProbeOutcome;
use crate::{metrics::ProbeResult, types::ProbeFailure};

/// A probe that has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FinishedProbe {
    /// Why it failed, if it did.
    pub result: Result<(), ProbeFailure>,
    /// How long it took.
    pub duration: Duration,
}

impl FinishedProbe {
    /// What the policy counts; `None`: the node was not asked, so there is nothing to count.
    pub fn outcome(&self) -> Option<ProbeOutcome> {
        match &self.result {
            Ok(()) => Some(ProbeOutcome::Up),
            Err(ProbeFailure::NotAsked(_)) => None,
            Err(failure) if failure.is_refusal() => Some(ProbeOutcome::Refused),
            Err(_) => Some(ProbeOutcome::Slow),
        }
    }

    /// The label under which it is counted.
    pub fn label(&self) -> ProbeResult {
        match &self.result {
            Ok(()) => ProbeResult::Ok,
            Err(ProbeFailure::Refused) => ProbeResult::Refused,
            Err(ProbeFailure::Reset) => ProbeResult::Reset,
            Err(ProbeFailure::Unreachable) => ProbeResult::Unreachable,
            Err(ProbeFailure::Timeout(_)) => ProbeResult::Timeout,
            Err(ProbeFailure::Status(_)) => ProbeResult::Status,
            Err(ProbeFailure::Malformed(_)) => ProbeResult::Malformed,
            Err(ProbeFailure::Broken(_)) => ProbeResult::Broken,
            Err(ProbeFailure::Tls(_)) => ProbeResult::Tls,
            Err(ProbeFailure::NotAsked(_)) => ProbeResult::NotAsked,
            Err(ProbeFailure::Panicked) => ProbeResult::Panic,
        }
    }
}
