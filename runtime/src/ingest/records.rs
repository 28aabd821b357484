//! Owns what the object store writes about objects, uploads and parts, and its layout on disk:
//!
//! ```text
//! <root>/lock                        held by the process that owns the store
//! <root>/blobs/<id>                  content; immutable once a record names it; unnamed ones are swept at open
//! <root>/buckets/<bucket>/.bucket    the bucket exists
//! <root>/buckets/<bucket>/<hash>     an object: metadata and the blobs that are its content, in order
//! <root>/uploads/<id>                an open multipart upload
//! <root>/uploads/<id>.<part>         a stored part of it
//! <root>/tmp/<id>                    a record being written; swept at open
//! ```
//!
//! A record is an envelope of [`MAGIC`], the first eight bytes of the SHA-256 of the rest, and CBOR. It appears by
//! rename, which is the commit. `<hash>` is the SHA-256 of the key in hexadecimal: any key is a safe, short name.
//!
//! At a site, the version of the data directory covers this layout too: a newer one is refused before this store is
//! opened. A record of a newer envelope is refused all the same, and never taken for a damaged one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

use super::limits;
use super::sums::{Algorithm, Coverage, Sums, hex, sha256};
use crate::seam::{Disk, DiskFile, Open};

/// First bytes of every record; the digit is the version of the envelope and of what is in it.
const MAGIC: &[u8; 8] = b"TGSPOOL1";
/// Those of them that every version begins with.
const FAMILY: &[u8] = MAGIC.split_at(7).0;

/// A run of bytes of an object: all of one blob.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Segment {
    /// Name in `blobs/`.
    #[n(0)]
    pub blob: String,
    /// Bytes.
    #[n(1)]
    pub len: u64,
    /// Computed while the bytes were received.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sha256: [u8; 32],
    /// Computed while the bytes were received.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub md5: [u8; 16],
    /// The sums that the uploader announced or the upload asks for.
    #[n(4)]
    pub sums: Sums,
    /// Part number; 1 for an object without parts.
    #[n(5)]
    pub number: u16,
}

/// What an uploader said about an object and gets back unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Described {
    /// `Content-Type`.
    #[n(0)]
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    #[n(1)]
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    #[n(2)]
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    #[n(3)]
    pub content_language: Option<String>,
    /// `Cache-Control`.
    #[n(4)]
    pub cache_control: Option<String>,
    /// `x-amz-meta-*`, names without the prefix, in lower case as HTTP/1 delivers them.
    #[n(5)]
    pub metadata: BTreeMap<String, String>,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectRecord {
    /// Key.
    #[n(0)]
    pub key: String,
    /// What the uploader said.
    #[n(1)]
    pub described: Described,
    /// Without quotes.
    #[n(2)]
    pub etag: String,
    /// Bytes.
    #[n(3)]
    pub len: u64,
    /// Of the whole content, computed by us.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub sha256: [u8; 32],
    /// Milliseconds since 1970.
    #[n(5)]
    pub modified_ms: i64,
    /// The content, in order.
    #[n(6)]
    pub segments: Vec<Segment>,
    /// The multipart upload that made it.
    #[n(7)]
    pub upload: Option<String>,
    /// The checksums that are reported for it.
    #[n(8)]
    pub sums: Sums,
    /// What they cover.
    #[n(9)]
    pub coverage: Coverage,
}

/// An open multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadRecord {
    /// Bucket.
    #[n(0)]
    pub bucket: String,
    /// Key.
    #[n(1)]
    pub key: String,
    /// What the uploader said.
    #[n(2)]
    pub described: Described,
    /// The algorithm that every part is to have.
    #[n(3)]
    pub algorithm: Option<Algorithm>,
    /// What the checksum of the object will cover.
    #[n(4)]
    pub coverage: Coverage,
    /// Milliseconds since 1970.
    #[n(5)]
    pub initiated_ms: i64,
}

/// A stored part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartRecord {
    /// The bytes.
    #[n(0)]
    pub segment: Segment,
    /// Milliseconds since 1970.
    #[n(1)]
    pub modified_ms: i64,
}

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BucketRecord {
    /// Milliseconds since 1970.
    #[n(0)]
    pub created_ms: i64,
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The folder of the store.
    pub root: PathBuf,
}

impl Layout {
    /// The name of the record of a bucket inside its folder. No key hashes to it.
    pub const BUCKET: &'static str = ".bucket";

    /// The file that is locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// The folder of records being written.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
    /// The folder of contents.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }
    /// One content.
    pub fn blob(&self, id: &str) -> PathBuf {
        self.blobs().join(id)
    }
    /// The folder of multipart uploads and their parts.
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }
    /// The folder of buckets.
    pub fn buckets(&self) -> PathBuf {
        self.root.join("buckets")
    }
    /// The folder of the objects of a bucket, whose name was checked.
    pub fn bucket(&self, bucket: &str) -> PathBuf {
        self.buckets().join(bucket)
    }
    /// The file name of an object.
    pub fn object_name(key: &str) -> String {
        hex(&sha256(key.as_bytes()))
    }
    /// The file name of a part.
    pub fn part_name(upload: &str, number: u16) -> String {
        format!("{upload}.{number:05}")
    }
}

/// How the writing of a record failed.
#[derive(Debug)]
pub enum Unwritten {
    /// Nothing changed.
    Clean(io::Error),
    /// The new record is in place but may be gone after a power loss: both it and what it replaced must be kept.
    Doubtful(io::Error),
}

impl Unwritten {
    /// The error of the disk.
    pub fn into_error(self) -> io::Error {
        match self {
            Unwritten::Clean(error) | Unwritten::Doubtful(error) => error,
        }
    }
}

/// Writes a record under a temporary name, syncs it, renames it to `folder/name` and syncs `folder`.
pub fn write<D: Disk, R: Encode<()>>(
    disk: &D,
    temporary: &Path,
    folder: &Path,
    name: &str,
    record: &R,
) -> Result<(), Unwritten> {
    let bytes = encode(record);
    let written = (|| {
        let file = disk.open(temporary, Open::Create)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()?;
        disk.rename(temporary, &folder.join(name))
    })();
    if let Err(error) = written {
        // What cannot be removed now is swept at the next open.
        let _ = disk.remove_file(temporary);
        return Err(Unwritten::Clean(error));
    }
    disk.sync_dir(folder).map_err(Unwritten::Doubtful)
}

/// Reads a record. `InvalidData` if it is damaged, `Unsupported` if it is of another version.
pub fn read<D: Disk, R>(disk: &D, path: &Path) -> io::Result<R>
where
    R: for<'b> Decode<'b, ()>,
{
    let file = disk.open(path, Open::Read)?;
    let len = file.len()?;
    if len > limits::RECORD_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidData)?];
    file.read_exact_at(&mut bytes, 0)?;
    if bytes.starts_with(FAMILY) && !bytes.starts_with(MAGIC) {
        let version =
            String::from_utf8_lossy(&bytes[FAMILY.len()..bytes.len().min(MAGIC.len())]).into_owned();
        let what = format!(
            "{} has version {version:?} and this program reads 1; run the tidegate that wrote it",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn encode<R: Encode<()>>(record: &R) -> Vec<u8> {
    let body = minicbor::to_vec(record).expect("writing to a vector cannot fail");
    let mut bytes = Vec::with_capacity(body.len() + 16);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sha256(&body)[..8]);
    bytes.extend_from_slice(&body);
    bytes
}

fn decode<R>(bytes: &[u8]) -> Option<R>
where
    R: for<'b> Decode<'b, ()>,
{
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = rest.split_at_checked(8)?;
    if sum != &sha256(body)[..8] {
        return None;
    }
    minicbor::decode(body).ok()
}
