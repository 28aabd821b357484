//! Owns digests: which algorithms there are, computing several over one pass, and combining those of parts. Must
//! not know files or requests.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use minicbor::{Decode, Encode};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Sha1};
use sha2::Sha256;

use super::refusal::Refusal;

/// A checksum that an uploader may announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Algorithm {
    /// CRC-32 (ISO-HDLC).
    #[n(0)]
    Crc32,
    /// CRC-32C (Castagnoli).
    #[n(1)]
    Crc32c,
    /// CRC-64/NVME.
    #[n(2)]
    Crc64Nvme,
    /// SHA-1.
    #[n(3)]
    Sha1,
    /// SHA-256.
    #[n(4)]
    Sha256,
}

/// What the checksum of an object of parts covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Coverage {
    /// The checksums of the parts, one after the other: written `base64-N`.
    #[n(0)]
    Composite,
    /// The content.
    #[n(1)]
    FullObject,
}

/// Raw digests by algorithm.
pub type Sums = BTreeMap<Algorithm, Vec<u8>>;

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// The protocol's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The header or trailer that announces it, in lower case.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm of that name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of a digest.
    #[must_use]
    pub fn digest_len(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    /// What the sum of an object of parts covers when its uploader did not say.
    #[must_use]
    pub fn coverage(self) -> Coverage {
        match self {
            Algorithm::Crc64Nvme => Coverage::FullObject,
            Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Sha1 | Algorithm::Sha256 => Coverage::Composite,
        }
    }

    /// Reads an announced digest. Fails with [`Refusal::InvalidDigest`].
    pub fn decode(self, text: &str) -> Result<Vec<u8>, Refusal> {
        match STANDARD.decode(text.trim()) {
            Ok(raw) if raw.len() == self.digest_len() => Ok(raw),
            Ok(_) | Err(_) => Err(Refusal::InvalidDigest(self.header())),
        }
    }
}

/// Base64 as the protocol writes it.
#[must_use]
pub fn base64(raw: &[u8]) -> String {
    STANDARD.encode(raw)
}

/// Reads `Content-MD5`. Fails with [`Refusal::InvalidDigest`].
pub fn decode_md5(text: &str) -> Result<[u8; 16], Refusal> {
    STANDARD
        .decode(text.trim())
        .ok()
        .and_then(|raw| raw.try_into().ok())
        .ok_or(Refusal::InvalidDigest("content-md5"))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(raw: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(raw.len() * 2);
    for byte in raw {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// What one pass over some bytes found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Always computed.
    pub sha256: [u8; 32],
    /// Always computed: the ETag is made of it.
    pub md5: [u8; 16],
    /// The others that were asked for. SHA-256 is in here as well, if asked for.
    pub sums: Sums,
}

/// Several digests over one pass.
pub struct Pass {
    sha256: Sha256,
    md5: Option<Md5>,
    want_sha256: bool,
    others: ChecksumHasher,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass").finish_non_exhaustive()
    }
}

impl Pass {
    /// A pass that computes SHA-256, MD5 and `also`.
    #[must_use]
    pub fn new(also: &[Algorithm]) -> Pass {
        let mut pass = Pass {
            sha256: Sha256::new(),
            md5: Some(Md5::new()),
            want_sha256: false,
            others: ChecksumHasher::default(),
        };
        for algorithm in also {
            match algorithm {
                Algorithm::Crc32 => pass.others.crc32 = Some(Crc32::new()),
                Algorithm::Crc32c => pass.others.crc32c = Some(Crc32c::new()),
                Algorithm::Crc64Nvme => pass.others.crc64nvme = Some(Crc64Nvme::new()),
                Algorithm::Sha1 => pass.others.sha1 = Some(Sha1::new()),
                Algorithm::Sha256 => pass.want_sha256 = true,
            }
        }
        pass
    }

    /// The same without MD5, which nobody asks for over a whole object of parts.
    #[must_use]
    pub fn without_md5(also: &[Algorithm]) -> Pass {
        Pass { md5: None, ..Pass::new(also) }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.others.update(bytes);
    }

    /// Ends the pass. `md5` is zero in a pass without it.
    #[must_use]
    pub fn finish(self) -> Found {
        let sha256: [u8; 32] = self.sha256.finalize().into();
        let mut sums = Sums::new();
        let ChecksumHasher { crc32, crc32c, sha1, crc64nvme, sha256: _ } = self.others;
        if let Some(sum) = crc32 {
            sums.insert(Algorithm::Crc32, sum.finalize().to_vec());
        }
        if let Some(sum) = crc32c {
            sums.insert(Algorithm::Crc32c, sum.finalize().to_vec());
        }
        if let Some(sum) = crc64nvme {
            sums.insert(Algorithm::Crc64Nvme, sum.finalize().to_vec());
        }
        if let Some(sum) = sha1 {
            sums.insert(Algorithm::Sha1, sum.finalize().to_vec());
        }
        if self.want_sha256 {
            sums.insert(Algorithm::Sha256, sha256.to_vec());
        }
        Found { sha256, md5: self.md5.map_or([0; 16], |md5| md5.finalize().into()), sums }
    }
}

/// The composite checksum of parts: `algorithm` over their raw sums.
#[must_use]
pub fn composite<'a>(algorithm: Algorithm, parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut pass = Pass::without_md5(&[algorithm]);
    for raw in parts {
        pass.update(raw);
    }
    pass.finish().sums.remove(&algorithm).expect("the pass was asked for it")
}

/// The ETag of an object of parts: MD5 over their raw MD5s, `-N`.
#[must_use]
pub fn parts_etag<'a>(parts: impl Iterator<Item = &'a [u8; 16]>) -> String {
    let mut md5 = Md5::new();
    let mut count = 0_usize;
    for raw in parts {
        md5.update(raw);
        count += 1;
    }
    let raw: [u8; 16] = md5.finalize().into();
    format!("{}-{count}", hex(&raw))
}

/// SHA-256 of a short text.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
