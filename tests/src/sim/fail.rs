//! What a checker says when something does not hold.
//!
//! Leaves out: the checks themselves.

use std::fmt;

/// An invariant that was broken, by its code in the list of invariants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// T tree, J journal, H clock, C crash, and N for what the exchange promises.
    pub code: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

/// Holds `code`, or says what broke it.
pub(crate) fn ensure(
    code: &'static str,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { code, what: what() }) }
}
