//! What an error is made of.

use std::{error::Error, io, iter};

/// An error and what caused it, the innermost last. An I/O error that is made of another one passes over it when it is
/// asked for its source; here it does not.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        let below =
            error.downcast_ref::<io::Error>().and_then(|error| Some(error.get_ref()? as &(dyn Error + 'static)));
        below.or_else(|| error.source())
    })
}
