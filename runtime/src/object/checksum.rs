//! Owns how SHA-256 is written in the S3 protocol. Computes none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidegate_core::digest::Sha256;
use tidegate_core::object::Composite;

/// User metadata that holds the SHA-256 of an object in hexadecimal.
pub const CHECKSUM_METADATA: &str = "checksum-sha256";

/// Reads a checksum over parts as S3 writes it: base64 of the digest, a dash, the number of parts.
#[must_use]
pub fn composite_from(text: &str) -> Option<Composite> {
    let (sum, parts) = text.rsplit_once('-')?;
    Some(Composite { sha256: from_base64(sum)?, parts: parts.parse().ok()? })
}

/// Reads a SHA-256 as S3 writes it: in base64.
#[must_use]
pub fn from_base64(text: &str) -> Option<Sha256> {
    let raw = STANDARD.decode(text.trim()).ok()?;
    Some(Sha256(raw.try_into().ok()?))
}

/// Writes a SHA-256 as S3 does: in base64.
#[must_use]
pub fn to_base64(sha256: Sha256) -> String {
    STANDARD.encode(sha256.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composite_checksum_is_taken_apart() {
        let sum = STANDARD.encode([7; 32]);
        assert_eq!(
            composite_from(&format!("{sum}-12")),
            Some(Composite { sha256: Sha256([7; 32]), parts: 12 })
        );
        for text in ["", "-1", &sum, &format!("{sum}-x"), "AAAA-2"] {
            assert_eq!(composite_from(text), None, "{text}");
        }
    }
}
