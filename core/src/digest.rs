//! Digests and the arithmetic of composite checksums. Never sees file bytes.

use alloc::string::String;
use core::fmt;
use md5::Md5;
use minicbor::{Decode, Encode};
use sha2::Digest;

use crate::id::ETag;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Sha256(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl Sha256 {
    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Sha256 {
        Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// From 64 hexadecimal digits of either case; anything else is `None`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Sha256> {
        let bytes = decode_hex::<32>(text.trim())?;
        Some(Sha256(bytes))
    }

    /// What S3 calls a composite checksum: the digest of the parts' digests in order.
    #[must_use]
    pub fn composite(parts: impl IntoIterator<Item = Sha256>) -> Sha256 {
        let mut hash = sha2::Sha256::new();
        for part in parts {
            hash.update(part.0);
        }
        Sha256(hash.finalize().into())
    }
}

fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(out)
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0 {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0[..6] {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

/// The entity tag of a multipart object: MD5 of the parts' MD5s, a dash, the number of parts. `None` if a part's
/// tag is no MD5 (encrypted buckets).
#[must_use]
pub fn multipart_etag<'a>(parts: impl IntoIterator<Item = &'a ETag>) -> Option<ETag> {
    let mut hash = Md5::new();
    let mut count = 0_u32;
    for part in parts {
        hash.update(decode_hex::<16>(part.as_str())?);
        count += 1;
    }
    let mut text = String::new();
    for b in hash.finalize() {
        fmt::write(&mut text, format_args!("{b:02x}")).ok()?;
    }
    fmt::write(&mut text, format_args!("-{count}")).ok()?;
    Some(ETag::new(&text))
}
