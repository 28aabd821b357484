//! How a module comes to the site's disk: its bytes and what was signed with them. Of a module that is in use nothing is
//! replaced that would keep it from being used; whether a module counts is the core's to say.

use std::io;

use tidegate_core::digest::Sha256;
use tidegate_core::row::{ModuleRow, ModuleState};

use super::{Loader, Unloaded};

/// Why a module was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unstored {
    /// This site runs none.
    #[error("this site runs no modules")]
    Native,
    /// The signature that came with it may not take the place of the one it has.
    #[error("its signature stays as it is: {0}")]
    Signature(String),
    /// It is being looked at, with another signature.
    #[error("it is being looked at with another signature: ask again in a moment")]
    Busy,
    /// The site's own disk failed; it may pass.
    #[error("it could not be stored: {0}")]
    Disk(#[from] io::Error),
}

/// Keeps the bytes of a module, and its signature beside them. `row` is what the site knows of it. Blocks.
///
/// # Errors
/// [`Unstored`]; nothing was changed then, unless the disk failed.
pub(crate) fn store(
    loader: &Loader,
    row: Option<&ModuleRow>,
    bytes: &[u8],
    signature: Option<&[u8]>,
) -> Result<Sha256, Unstored> {
    let Some(blobs) = loader.blobs() else { return Err(Unstored::Native) };
    let module = Sha256::of(bytes);
    match row.map(|row| &row.state) {
        None | Some(ModuleState::Rejected { .. }) => {
            blobs.put(bytes)?;
            // Also none: an earlier one may be what it was refused for.
            blobs.put_signature(module, signature)?;
        }
        Some(state @ (ModuleState::Staged | ModuleState::Admitted)) => {
            let stored = blobs.signature(module)?;
            let new = signature.filter(|new| stored.as_deref() != Some(new));
            if new.is_some() && *state == ModuleState::Staged {
                return Err(Unstored::Busy);
            }
            if let Some(new) = new {
                let serves = row.and_then(|row| row.facts.as_ref()).map_or(&[][..], |facts| &facts.slots);
                loader.renew(module, bytes, serves, new).map_err(|unloaded| match unloaded {
                    Unloaded::Rejected(rejection) => Unstored::Signature(rejection.why),
                    Unloaded::Disk(why) | Unloaded::Late(why) => Unstored::Disk(io::Error::other(why)),
                })?;
            }
            blobs.put(bytes)?;
            if new.is_some() {
                blobs.put_signature(module, new)?;
            }
        }
    }
    Ok(module)
}
