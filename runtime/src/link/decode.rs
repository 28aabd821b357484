//! Stands in for the decoders of the core.

use tidegate_core::wire::{RecorderMessage, TransferMessage, Unusable, object, text};

pub(super) fn recorder(bytes: &[u8]) -> Result<RecorderMessage, Unusable> {
    object(bytes).map(|map| RecorderMessage::Other(text(&map, "type").unwrap_or_default()))
}

pub(super) fn transfer(bytes: &[u8]) -> Result<TransferMessage, Unusable> {
    object(bytes).map(|map| TransferMessage::Other(text(&map, "type").unwrap_or_default()))
}
