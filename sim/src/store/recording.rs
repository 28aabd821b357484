//! What a recording of this world is as a file: there are no bytes that could be read, so its digest decides. Knows nothing
//! of what the core makes of it.

use tidegate_core::digest::Sha256;
use tidegate_core::object::{Flaw, McapFacts};

/// Messages of a recording whose sidecar announces none.
const MESSAGES: u64 = 100;

/// What is wrong with a recording: with one in six something is.
#[must_use]
pub fn flaw(sha256: Sha256) -> Option<Flaw> {
    let [first, second, ..] = sha256.0;
    first.is_multiple_of(6).then(|| Flaw::ALL[usize::from(second) % Flaw::ALL.len()])
}

/// What a check finds in a recording whose sidecar announces so many messages: in one of six it finds one less.
#[must_use]
pub fn facts(sha256: Sha256, announced: Option<u64>) -> McapFacts {
    let messages = announced.unwrap_or(MESSAGES);
    let short = u64::from(sha256.0[0] % 6 == 1);
    McapFacts { flaw: flaw(sha256), messages: messages.saturating_sub(short), ..McapFacts::default() }
}
