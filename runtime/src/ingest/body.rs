//! Owns receiving a body: streaming it to a blob with bounded memory, and checking it against what was announced.
//! Must not make anything visible.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use s3s::TrailingHeaders;
use s3s::dto::StreamingBlob;

use super::limits;
use super::observe::Notes;
use super::records::Segment;
use super::refusal::Refusal;
use super::spool::{Blob, Spool};
use super::sums::{Algorithm, Pass, Sums, decode_md5};
use crate::seam::{Disk, DiskFile, Open, Seams};

/// What an uploader announced about a body.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Bytes.
    pub len: Option<u64>,
    /// `Content-MD5`.
    pub md5: Option<[u8; 16]>,
    /// Checksums in headers.
    pub sums: Sums,
    /// Algorithms to compute although nothing was announced in a header: those of trailers, and of the upload.
    pub also: Vec<Algorithm>,
    /// Where trailers turn up once the body has ended, and which were promised.
    pub trailers: Option<(TrailingHeaders, Vec<Algorithm>)>,
    /// How long the body may pause.
    pub idle: Duration,
    /// Hears of the bytes as they arrive.
    pub(super) notes: Notes,
}

impl Default for Announced {
    fn default() -> Announced {
        Announced {
            len: None,
            md5: None,
            sums: Sums::new(),
            also: Vec::new(),
            trailers: None,
            idle: limits::BODY_IDLE,
            notes: Notes::default(),
        }
    }
}

impl Announced {
    /// Adds a checksum header. Fails with [`Refusal::InvalidDigest`].
    pub fn sum(&mut self, algorithm: Algorithm, text: Option<&str>) -> Result<(), Refusal> {
        if let Some(text) = text {
            self.sums.insert(algorithm, algorithm.decode(text)?);
        }
        Ok(())
    }

    /// Adds the `Content-MD5` header. Fails with [`Refusal::InvalidDigest`].
    pub fn content_md5(&mut self, text: Option<&str>) -> Result<(), Refusal> {
        self.md5 = text.map(decode_md5).transpose()?;
        Ok(())
    }
}

/// A durable blob that no record names yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Received {
    /// Part number 1; the caller sets another.
    pub(super) segment: Segment,
    pub(super) blob: Arc<Blob>,
}

impl<S: Seams> Spool<S> {
    /// Streams `body` to disk and makes it durable. The bytes of a refused one are gone before the refusal is heard.
    pub(super) async fn receive(
        &self,
        body: Option<StreamingBlob>,
        announced: Announced,
    ) -> Result<Received, Refusal> {
        let received = self.take_in(body, announced).await;
        if received.is_err() {
            self.run(|_| ()).await;
        }
        received
    }

    async fn take_in(&self, body: Option<StreamingBlob>, announced: Announced) -> Result<Received, Refusal> {
        let mut also: Vec<Algorithm> =
            announced.sums.keys().copied().chain(announced.also.iter().copied()).collect();
        also.sort_unstable();
        also.dedup();
        let mut writer = self
            .run(move |inner| {
                let blob = Blob::new(inner.fresh_name(), 0, &inner.ledger);
                let file = inner.disk().open(&inner.layout.blob(&blob.id), Open::CreateNew)?;
                Ok::<_, Refusal>(Writer { file, blob, pass: Pass::new(&also) })
            })
            .await?;
        if let Some(mut body) = body {
            let mut pending: Vec<Bytes> = Vec::new();
            let mut pending_len = 0;
            loop {
                let next = tokio::time::timeout(announced.idle, body.next()).await.map_err(|_| {
                    announced.notes.stalled(announced.idle);
                    Refusal::Timeout
                })?;
                let Some(piece) = next else { break };
                let piece = piece.map_err(|error| broken_body(&error.to_string()))?;
                announced.notes.received(piece.len() as u64);
                let total = writer.blob.bytes() + (pending_len + piece.len()) as u64;
                if announced.len.is_some_and(|len| total > len) {
                    return Err(Refusal::IncompleteBody("more bytes than announced".to_owned()));
                }
                pending_len += piece.len();
                pending.push(piece);
                if pending_len >= limits::WRITE_CHUNK {
                    let pieces = std::mem::take(&mut pending);
                    pending_len = 0;
                    writer = self.run(move |_| writer.write(&pieces)).await?;
                }
            }
            writer = self.run(move |_| writer.write(&pending)).await?;
        }
        let len = writer.blob.bytes();
        if announced.len.is_some_and(|announced| announced != len) {
            return Err(Refusal::IncompleteBody(format!("{len} bytes arrived")));
        }
        let mut expected = announced.sums;
        if let Some((trailers, promised)) = announced.trailers {
            read_trailers(&trailers, &promised, &mut expected)?;
        }
        let received = self.run(move |inner| writer.finish(inner)).await?;
        check(&received.segment, announced.md5, &expected)?;
        Ok(received)
    }
}

struct Writer<F> {
    file: F,
    blob: Arc<Blob>,
    pass: Pass,
}

impl<F: DiskFile> Writer<F> {
    fn write(mut self, pieces: &[Bytes]) -> Result<Writer<F>, Refusal> {
        for piece in pieces {
            self.file.write_all_at(piece, self.blob.bytes())?;
            self.blob.grow(piece.len() as u64);
            self.pass.update(piece);
        }
        Ok(self)
    }

    fn finish<S: Seams>(self, inner: &super::spool::Inner<S>) -> Result<Received, Refusal> {
        self.file.sync()?;
        inner.disk().sync_dir(&inner.layout.blobs())?;
        let found = self.pass.finish();
        let segment = Segment {
            blob: self.blob.id.clone(),
            len: self.blob.bytes(),
            sha256: found.sha256,
            md5: found.md5,
            sums: found.sums,
            number: 1,
        };
        Ok(Received { segment, blob: self.blob })
    }
}

fn check(segment: &Segment, md5: Option<[u8; 16]>, expected: &Sums) -> Result<(), Refusal> {
    if md5.is_some_and(|md5| md5 != segment.md5) {
        return Err(Refusal::BadDigest("content-md5"));
    }
    for (algorithm, raw) in expected {
        if segment.sums.get(algorithm) != Some(raw) {
            return Err(Refusal::BadDigest(algorithm.header()));
        }
    }
    Ok(())
}

fn read_trailers(
    trailers: &TrailingHeaders,
    promised: &[Algorithm],
    expected: &mut Sums,
) -> Result<(), Refusal> {
    let headers = trailers.take().unwrap_or_default();
    for algorithm in promised {
        let Some(value) = headers.get(algorithm.header()) else {
            return Err(Refusal::InvalidRequest(format!("the trailer {} is missing", algorithm.header())));
        };
        let text = value.to_str().map_err(|_| Refusal::InvalidDigest(algorithm.header()))?;
        expected.insert(*algorithm, algorithm.decode(text)?);
    }
    Ok(())
}

/// The types of these errors are private to the protocol crate; their words are all there is to tell them apart.
fn broken_body(words: &str) -> Refusal {
    if words.contains("Sha256Mismatch") {
        Refusal::BadDigest("x-amz-content-sha256")
    } else if words.contains("SignatureMismatch") {
        Refusal::Signature
    } else {
        Refusal::IncompleteBody(words.to_owned())
    }
}
