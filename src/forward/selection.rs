//! Which reply is passed on when several upstreams were asked.

use super::error::AttemptError;

/// The attempts of one question, in the order in which the upstreams were asked.
///
/// Records win at once. A negative answer waits for the upstreams that were asked before: only the first may know the names of
/// the operator's own network.
#[derive(Debug)]
pub(super) struct ReplySelection<A>(Vec<Attempt<A>>);

#[derive(Debug)]
enum Attempt<A> {
    Pending,
    Negative(A),
    Failed(AttemptError),
}

impl<A> ReplySelection<A> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// One more upstream is asked. Returns the number of the attempt.
    pub(super) fn begin(&mut self) -> usize {
        self.0.push(Attempt::Pending);
        self.0.len() - 1
    }

    /// An attempt ended with a negative answer.
    pub(super) fn negative(&mut self, attempt: usize, answer: A) {
        self.end(attempt, Attempt::Negative(answer));
    }

    /// An attempt ended without an answer.
    pub(super) fn failed(&mut self, attempt: usize, error: AttemptError) {
        self.end(attempt, Attempt::Failed(error));
    }

    /// Whether a further upstream may have a better reply: not if there is an answer already, and if the last one that was
    /// asked has failed.
    pub(super) fn wants_another(&self) -> bool {
        !self.has_answer() && !matches!(self.0.last(), Some(Attempt::Pending))
    }

    /// Whether there is an answer, which may have to wait.
    pub(super) fn has_answer(&self) -> bool {
        self.0.iter().any(|attempt| matches!(attempt, Attempt::Negative(_)))
    }

    /// The attempt that was begun last, if it is pending.
    pub(super) fn last_pending(&self) -> Option<usize> {
        matches!(self.0.last(), Some(Attempt::Pending)).then(|| self.0.len() - 1)
    }

    /// The outcome, when it no longer depends on a pending attempt.
    pub(super) fn decide(&mut self) -> Option<Result<A, AttemptError>> {
        let first = self.0.iter().position(|attempt| !matches!(attempt, Attempt::Failed(_)));
        match first {
            Some(first) if matches!(self.0.get(first), Some(Attempt::Pending)) => None,
            _ => Some(self.take()),
        }
    }

    /// The outcome at the deadline, without those that are pending.
    pub(super) fn take(&mut self) -> Result<A, AttemptError> {
        let mut error = AttemptError::NoReply;
        for attempt in self.0.drain(..) {
            match attempt {
                Attempt::Negative(answer) => return Ok(answer),
                Attempt::Failed(failed) => error = error.max(failed),
                Attempt::Pending => {}
            }
        }
        Err(error)
    }

    fn end(&mut self, attempt: usize, end: Attempt<A>) {
        if let Some(attempt) = self.0.get_mut(attempt) {
            *attempt = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A selection with three attempts that are pending.
    fn three() -> ReplySelection<&'static str> {
        let mut selection = ReplySelection::new();
        assert_eq!([selection.begin(), selection.begin(), selection.begin()], [0, 1, 2]);
        assert_eq!(selection.decide(), None);
        selection
    }

    #[test]
    fn a_negative_answer_waits_for_the_earlier_upstreams() {
        let mut selection = three();
        selection.negative(2, "third");
        assert_eq!(selection.decide(), None);
        selection.failed(0, AttemptError::NoReply);
        assert_eq!(selection.decide(), None, "the second may have an answer");
        selection.negative(1, "second");
        assert_eq!(selection.decide(), Some(Ok("second")));

        let mut selection = three();
        selection.negative(0, "first");
        assert_eq!(selection.decide(), Some(Ok("first")), "later ones are not waited for");

        let mut selection = three();
        selection.negative(2, "third");
        assert_eq!(selection.take(), Ok("third"), "at the deadline");
    }

    #[test]
    fn an_error_is_the_outcome_only_when_all_have_failed() {
        let mut selection = three();
        selection.failed(0, AttemptError::ErrorReply);
        selection.failed(1, AttemptError::NoReply);
        assert_eq!(selection.decide(), None);
        selection.failed(2, AttemptError::Shortage);
        assert_eq!(selection.decide(), Some(Err(AttemptError::ErrorReply)));
        assert_eq!(three().take(), Err(AttemptError::NoReply));
    }

    #[test]
    fn another_upstream_is_asked_after_a_failure_and_not_after_an_answer() {
        let mut selection = ReplySelection::new();
        assert!(selection.wants_another());
        selection.begin();
        assert!(!selection.wants_another());
        assert_eq!(selection.last_pending(), Some(0));
        selection.failed(0, AttemptError::ErrorReply);
        assert!(selection.wants_another());
        assert_eq!(selection.last_pending(), None);
        selection.begin();
        selection.negative(1, "second");
        assert!(!selection.wants_another() && selection.has_answer());
    }
}
