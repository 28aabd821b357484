//! Owns S3 requests of a device, and of tests that look into a store for themselves. It never retries.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderMap};
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sha2::{Digest, Sha256};
use tidegate_runtime::seam::{Blocking, Clock, Disk, DiskFile, Net, Open, Seams};

use crate::config::S3Config;
use crate::http::{Answer, Body, Exchange, Http, full};
use crate::s3_error::S3Error;
use crate::sigv4::{Signed, Signer, encode, hex, query, sha256_hex};
use crate::xml;

/// What HEAD says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Bytes.
    pub len: u64,
    /// Without quotes.
    pub etag: String,
    /// The uploader's `x-amz-meta-checksum-sha256`.
    pub checksum_sha256: Option<String>,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Key within the bucket.
    pub key: String,
    /// Bytes.
    pub len: u64,
    /// Without quotes.
    pub etag: String,
}

/// A piece of a local file, opened once and read as often as need be.
#[derive(Debug)]
pub struct FileSlice<F> {
    file: Arc<F>,
    offset: u64,
    len: u64,
}

impl<F> Clone for FileSlice<F> {
    fn clone(&self) -> Self {
        Self { file: Arc::clone(&self.file), offset: self.offset, len: self.len }
    }
}

/// A client of one bucket.
#[derive(Clone, Debug)]
pub struct S3<S: Seams> {
    seams: S,
    http: Http<S::Net>,
    config: S3Config,
}

impl<S: Seams> S3<S>
where
    S::Net: Net,
{
    /// A client of the bucket that `config` names.
    pub fn new(seams: S, config: S3Config) -> Self {
        let http = Http::new(seams.net().clone(), config.host.clone(), config.port);
        Self { http: http.with_timeout(config.request_timeout), seams, config }
    }

    /// Makes the bucket; one that exists already is fine.
    ///
    /// # Errors
    /// If the store does not say that the bucket is ours.
    pub async fn create_bucket(&self) -> Result<(), S3Error> {
        match self.request(Method::PUT, "", &[], &[], Payload::Bytes(Bytes::new())).await {
            Err(S3Error::Refused { code, .. }) if code == "BucketAlreadyOwnedByYou" => Ok(()),
            other => other.map(drop),
        }
    }

    /// What is known of an object; `None` if there is none.
    ///
    /// # Errors
    /// Anything but 200 and 404.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectHead>, S3Error> {
        match self.request(Method::HEAD, key, &[], &[], Payload::Bytes(Bytes::new())).await {
            Ok(answer) => {
                let len = text(answer.headers(), CONTENT_LENGTH.as_str());
                Ok(Some(ObjectHead {
                    len: len.and_then(|len| len.parse().ok()).unwrap_or(0),
                    etag: unquoted(answer.headers()),
                    checksum_sha256: text(answer.headers(), CHECKSUM).map(str::to_owned),
                }))
            }
            // An answer to HEAD has no body, so a missing bucket looks like a missing object.
            Err(S3Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts bytes; gives the ETag.
    ///
    /// # Errors
    /// If the store does not say that it has them.
    pub async fn put(
        &self,
        key: &str,
        bytes: impl Into<Bytes>,
        content_type: &str,
    ) -> Result<String, S3Error> {
        let headers = [(CONTENT_TYPE.as_str(), content_type)];
        let answer = self.request(Method::PUT, key, &[], &headers, Payload::Bytes(bytes.into())).await?;
        Ok(unquoted(answer.headers()))
    }

    /// Puts a whole file with `checksum` as its user metadata, in parts above `part_size`; gives the ETag.
    /// A multipart upload that fails is aborted as well as can be.
    ///
    /// # Errors
    /// If the store does not say that it has the object, or the file cannot be read.
    pub async fn put_file(
        &self,
        key: &str,
        slice: FileSlice<<S::Disk as Disk>::File>,
        checksum: Option<&str>,
        content_type: &str,
        part_size: u64,
        parallel: usize,
    ) -> Result<String, S3Error> {
        let mut headers = vec![(CONTENT_TYPE.as_str(), content_type)];
        headers.extend(checksum.map(|checksum| (CHECKSUM, checksum)));
        if slice.len <= part_size {
            let answer = self.request(Method::PUT, key, &[], &headers, Payload::File(slice)).await?;
            return Ok(unquoted(answer.headers()));
        }
        let upload_id = self.multipart_create(key, &headers).await?;
        let parts = slice.len.div_ceil(part_size);
        let sent = stream::iter(0..parts).map(|index| {
            let offset = slice.offset + index * part_size;
            let len = part_size.min(slice.offset + slice.len - offset);
            let part = FileSlice { file: Arc::clone(&slice.file), offset, len };
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let upload_id = &upload_id;
            async move {
                Ok::<_, S3Error>((
                    number,
                    self.upload_part(key, upload_id, number, Payload::File(part)).await?,
                ))
            }
        });
        let outcome = async {
            let mut parts: Vec<(u32, String)> = sent.buffer_unordered(parallel.max(1)).try_collect().await?;
            parts.sort_unstable();
            self.multipart_complete(key, &upload_id, &parts).await
        };
        match outcome.await {
            Ok(etag) => Ok(etag),
            Err(error) => {
                // The first error is the one worth telling.
                let _ = self.multipart_abort(key, &upload_id).await;
                Err(error)
            }
        }
    }

    /// Begins a multipart upload with these headers (content type, user metadata); gives its id.
    ///
    /// # Errors
    /// If the store gives none.
    pub async fn multipart_create(&self, key: &str, headers: &[(&str, &str)]) -> Result<String, S3Error> {
        let empty = Payload::Bytes(Bytes::new());
        let answer = self.request(Method::POST, key, &[("uploads", "")], headers, empty).await?;
        let body = answer.collect().await?.body;
        xml::text(&String::from_utf8_lossy(&body), "UploadId")
            .ok_or_else(|| S3Error::Wrong("the answer to ?uploads has no UploadId".to_owned()))
    }

    /// Puts one part; gives its ETag.
    ///
    /// # Errors
    /// If the store does not say that it has it.
    pub async fn upload_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u32,
        payload: Payload<<S::Disk as Disk>::File>,
    ) -> Result<String, S3Error> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", upload_id)];
        Ok(unquoted(self.request(Method::PUT, key, &query, &[], payload).await?.headers()))
    }

    /// Makes an object of the parts, given with their ETags in ascending order; gives the ETag of the object.
    ///
    /// # Errors
    /// If the store refuses, also when it does so in the body of a 200.
    pub async fn multipart_complete(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[(u32, String)],
    ) -> Result<String, S3Error> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for (number, etag) in parts {
            body.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = [("uploadId", upload_id)];
        let answer = self
            .request(Method::POST, key, &query, &[], Payload::Bytes(body.into()))
            .await?
            .collect()
            .await?;
        let body = String::from_utf8_lossy(&answer.body);
        if body.contains("<Error>") {
            return Err(S3Error::refused(answer.status, &body));
        }
        xml::text(&body, "ETag")
            .map(|etag| etag.trim_matches('"').to_owned())
            .ok_or_else(|| S3Error::Wrong("the answer to a completed upload has no ETag".to_owned()))
    }

    /// Drops a multipart upload and its parts.
    ///
    /// # Errors
    /// If the store does not say that it did.
    pub async fn multipart_abort(&self, key: &str, upload_id: &str) -> Result<(), S3Error> {
        let query = [("uploadId", upload_id)];
        self.request(Method::DELETE, key, &query, &[], Payload::Bytes(Bytes::new())).await.map(drop)
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// If the store does not say that it is gone.
    pub async fn delete(&self, key: &str) -> Result<(), S3Error> {
        self.request(Method::DELETE, key, &[], &[], Payload::Bytes(Bytes::new())).await.map(drop)
    }

    /// Reads an object through and gives its length and SHA-256 in hex; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read to its end.
    pub async fn get_sha256(&self, key: &str) -> Result<Option<(u64, String)>, S3Error> {
        let Some(mut answer) = self.get(key).await? else { return Ok(None) };
        let (mut len, mut sha) = (0u64, Sha256::new());
        while let Some(chunk) = answer.chunk().await? {
            len += chunk.len() as u64;
            sha.update(&chunk);
        }
        Ok(Some((len, hex(&sha.finalize()))))
    }

    /// A whole object of at most 64 MiB; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read to its end.
    pub async fn get_bytes(&self, key: &str) -> Result<Option<Bytes>, S3Error> {
        match self.get(key).await? {
            Some(answer) => Ok(Some(answer.collect().await?.body)),
            None => Ok(None),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Exchange<<S::Net as Net>::Stream>>, S3Error> {
        match self.request(Method::GET, key, &[], &[], Payload::Bytes(Bytes::new())).await {
            Ok(answer) => Ok(Some(answer)),
            Err(S3Error::Refused { code, .. }) if code == "NoSuchKey" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects whose key begins with `prefix`, in the store's order.
    ///
    /// # Errors
    /// If a page of the listing cannot be had.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, S3Error> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            query.extend(token.as_deref().map(|token| ("continuation-token", token)));
            let empty = Payload::Bytes(Bytes::new());
            let answer = self.request(Method::GET, "", &query, &[], empty).await?.collect().await?;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            for entry in xml::elements(&body, "Contents") {
                let field = |name| xml::text(entry, name).unwrap_or_default();
                let len = field("Size");
                objects.push(Object {
                    key: field("Key"),
                    len: len.parse().map_err(|_| S3Error::Wrong(format!("listing: Size is {len:?}")))?,
                    etag: field("ETag").trim_matches('"').to_owned(),
                });
            }
            token = xml::text(&body, "NextContinuationToken");
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Opens a whole file for [`S3::put_file`].
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub async fn file(&self, path: &Path) -> Result<FileSlice<<S::Disk as Disk>::File>, S3Error> {
        let (disk, path) = (self.seams.disk().clone(), path.to_owned());
        let opened = self.seams.blocking().run(move || {
            let file = disk.open(&path, Open::Read)?;
            let len = file.len()?;
            io::Result::Ok(FileSlice { file: Arc::new(file), offset: 0, len })
        });
        opened.await.map_err(S3Error::Disk)
    }

    /// Signs and sends any request, and gives whatever the store answers, refusals included: for looking at what a
    /// store does. Without a key it is about the bucket.
    ///
    /// # Errors
    /// If no whole answer comes.
    pub async fn ask(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, S3Error> {
        let exchange = self.exchange(method, key, query, headers, Payload::Bytes(body.into())).await?;
        Ok(exchange.collect().await?)
    }

    /// Signs, sends and waits for the head of a successful answer.
    async fn request(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        more: &[(&str, &str)],
        payload: Payload<<S::Disk as Disk>::File>,
    ) -> Result<Exchange<<S::Net as Net>::Stream>, S3Error> {
        let answer = self.exchange(method, key, query, more, payload).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let answer = answer.collect().await?;
        Err(S3Error::refused(answer.status, &String::from_utf8_lossy(&answer.body)))
    }

    /// Signs, sends and waits for the head of the answer.
    async fn exchange(
        &self,
        method: Method,
        key: &str,
        query_pairs: &[(&str, &str)],
        more: &[(&str, &str)],
        payload: Payload<<S::Disk as Disk>::File>,
    ) -> Result<Exchange<<S::Net as Net>::Stream>, S3Error> {
        let (sha256, len, body) = match payload {
            Payload::Bytes(bytes) => (sha256_hex(&bytes), bytes.len() as u64, full(bytes)),
            Payload::File(slice) => {
                let (blocking, hashed) = (self.seams.blocking(), slice.clone());
                let sha256 = blocking.run(move || hash(&*hashed.file, hashed.offset, hashed.len)).await;
                (sha256.map_err(S3Error::Disk)?, slice.len, self.body(slice))
            }
        };
        let config = &self.config;
        let path = match key {
            "" => format!("/{}", encode(&config.bucket, false)),
            key => format!("/{}/{}", encode(&config.bucket, false), encode(key, true)),
        };
        let host = format!("{}:{}", config.host, config.port);
        let date = timestamp(self.seams.clock().now().wall.0, "%Y%m%dT%H%M%SZ");
        let mut headers = vec![
            (HOST.as_str(), host.as_str()),
            ("x-amz-content-sha256", sha256.as_str()),
            ("x-amz-date", date.as_str()),
        ];
        headers.extend_from_slice(more);
        let signer =
            Signer { access_key: &config.access_key, secret_key: &config.secret_key, region: &config.region };
        let authorization = signer.authorization(&Signed {
            method: method.as_str(),
            path: &path,
            query: query_pairs,
            headers: &headers,
            payload_sha256: &sha256,
            date: &date,
        });
        let target = match query(query_pairs) {
            query if query.is_empty() => path,
            query => format!("{path}?{query}"),
        };
        let mut request = Request::builder().method(&method).uri(target).header(AUTHORIZATION, authorization);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if method == Method::PUT || method == Method::POST {
            request = request.header(CONTENT_LENGTH, len);
        }
        let request = request.body(body).map_err(|error| S3Error::Wrong(error.to_string()))?;
        Ok(self.http.exchange(request).await?)
    }

    /// A body that reads its file as the socket takes it.
    fn body(&self, slice: FileSlice<<S::Disk as Disk>::File>) -> Body {
        let blocking = self.seams.blocking().clone();
        let end = slice.offset + slice.len;
        let chunks = stream::try_unfold(slice.offset, move |at| {
            let (blocking, file) = (blocking.clone(), Arc::clone(&slice.file));
            async move {
                let len = (end - at).min(READ_BYTES);
                if len == 0 {
                    return Ok(None);
                }
                let read = blocking.run(move || {
                    let mut chunk = vec![0; len as usize];
                    file.read_exact_at(&mut chunk, at)?;
                    io::Result::Ok(chunk)
                });
                Ok(Some((Frame::data(Bytes::from(read.await?)), at + len)))
            }
        });
        StreamBody::new(chunks).boxed_unsync()
    }
}

/// What a request carries.
#[derive(Debug)]
pub enum Payload<F> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A piece of a file; read once to sign it and once to send it.
    File(FileSlice<F>),
}

/// SHA-256 in hex of a piece of a file, read in bounded chunks.
pub(crate) fn hash(file: &impl DiskFile, offset: u64, len: u64) -> io::Result<String> {
    let mut sha = Sha256::new();
    let mut chunk = vec![0; READ_BYTES.min(len) as usize];
    let mut at = 0;
    while at < len {
        let piece = &mut chunk[..READ_BYTES.min(len - at) as usize];
        file.read_exact_at(piece, offset + at)?;
        sha.update(&*piece);
        at += piece.len() as u64;
    }
    Ok(hex(&sha.finalize()))
}

/// Milliseconds since 1970 as UTC text.
pub(crate) fn timestamp(wall_ms: i64, format: &str) -> String {
    let time = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime(format).to_string()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn unquoted(headers: &HeaderMap) -> String {
    text(headers, ETAG.as_str()).unwrap_or_default().trim_matches('"').to_owned()
}

/// User metadata by which real uploaders carry the SHA-256 of a recording.
const CHECKSUM: &str = "x-amz-meta-checksum-sha256";

/// Read from a file at once: large enough for a disk, small enough to be nothing beside a part.
const READ_BYTES: u64 = 256 << 10;
