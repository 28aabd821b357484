//! Planted bugs of the edges, and the one bug of the bank that a whole process has. The core's own are in its bank
//! ([`tidegate_core::bug`]). Must not change what an ordinary build does.
//!
//! Whole-process tests name a bug before anything starts ([`plant`]), and only in a build with `TIDEGATE_BUGS=1`: in an
//! ordinary one nothing can be named, and every question after a bug is the literal `false`.

use std::sync::OnceLock;

use tidegate_core::bug::{Bug as CoreBug, PLANTED};
use tidegate_core::input::Input;
use tidegate_core::knobs::Knobs;
use tidegate_core::wire::TransferMessage;
use tokio::sync::Notify;

/// A planted bug of the edges. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// R01: a message of a device may have 32 KiB, whatever `devices.max_message` says.
    R01,
    /// R02: who reads a link waits until the recording that was announced on it is verified.
    R02,
}

#[derive(Debug)]
enum Planted {
    Edge(Bug),
    Core(CoreBug),
}

static CHOSEN: OnceLock<Planted> = OnceLock::new();

/// Gives this process the bug of this id, `R01` or one of the core's bank. To be called once, before a site starts.
///
/// # Errors
/// An ordinary build has none; or there is no such bug, or one was named before.
pub fn plant(id: &str) -> Result<(), String> {
    if !PLANTED {
        return Err(format!("bug {id} is not compiled in: build with TIDEGATE_BUGS=1"));
    }
    let planted = match id {
        "R01" => Planted::Edge(Bug::R01),
        "R02" => Planted::Edge(Bug::R02),
        id => Planted::Core(CoreBug::from_id(id).ok_or_else(|| format!("no bug has the id {id}"))?),
    };
    CHOSEN.set(planted).map_err(|_| "a process has one bug".to_owned())
}

/// Whether this process has this bug.
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED && matches!(CHOSEN.get(), Some(Planted::Edge(chosen)) if *chosen == bug)
}

/// The settings of a machine with the bug in them, if it is one of the core's.
pub(crate) fn in_core(knobs: Knobs) -> Knobs {
    match CHOSEN.get() {
        Some(Planted::Core(bug)) => knobs.planting(*bug).expect("it was named, so this build has it"),
        Some(Planted::Edge(_)) | None => knobs,
    }
}

/// R02: that a frame left for some uploader, which is what its reader waits for.
static LEFT: Notify = Notify::const_new();

/// R02: waits until an uploader was answered.
pub(crate) async fn until_answered() {
    LEFT.notified().await;
}

/// R02: whether this is what the predecessor stopped reading for.
pub(crate) fn stops_reading(input: &Input) -> bool {
    let announced = matches!(input, Input::Transfer { message: TransferMessage::UploadComplete(_), .. });
    announced && has(Bug::R02)
}

/// R02: a frame left for an uploader.
pub(crate) fn answered() {
    LEFT.notify_waiters();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_build_has_no_bug_to_name() {
        if PLANTED {
            assert!(plant("R99").is_err_and(|why| why.contains("no bug")));
        } else {
            assert!(plant("R01").is_err_and(|why| why.contains("not compiled in")));
        }
        assert!(!has(Bug::R01) && !has(Bug::R02));
        assert_eq!(in_core(Knobs::default()), Knobs::default());
    }
}
