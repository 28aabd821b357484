//! Owns the translation between the protocol's types and ours. Must not touch the store.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::S3Request;
use s3s::dto::{self, ChecksumAlgorithm, ChecksumMode, ChecksumType, ETag, ETagCondition, Timestamp};

use super::body::Announced;
use super::multipart::Completion;
use super::objects::Condition;
use super::observe::Notes;
use super::records::{Described, ObjectRecord};
use super::refusal::Refusal;
use super::sums::{Algorithm, Coverage, Sums};

/// Fills the five checksum fields of an answer from sums.
macro_rules! put_sums {
    ($out:expr, $sums:expr, $parts:expr) => {{
        let (sums, parts) = ($sums, $parts);
        $out.checksum_crc32 = $crate::ingest::objects::written_sum(sums, Algorithm::Crc32, parts);
        $out.checksum_crc32c = $crate::ingest::objects::written_sum(sums, Algorithm::Crc32c, parts);
        $out.checksum_crc64nvme = $crate::ingest::objects::written_sum(sums, Algorithm::Crc64Nvme, parts);
        $out.checksum_sha1 = $crate::ingest::objects::written_sum(sums, Algorithm::Sha1, parts);
        $out.checksum_sha256 = $crate::ingest::objects::written_sum(sums, Algorithm::Sha256, parts);
    }};
}
pub(super) use put_sums;

/// The five checksum fields of a request, as pairs.
macro_rules! sum_fields {
    ($input:expr) => {
        [
            (Algorithm::Crc32, $input.checksum_crc32.as_deref()),
            (Algorithm::Crc32c, $input.checksum_crc32c.as_deref()),
            (Algorithm::Crc64Nvme, $input.checksum_crc64nvme.as_deref()),
            (Algorithm::Sha1, $input.checksum_sha1.as_deref()),
            (Algorithm::Sha256, $input.checksum_sha256.as_deref()),
        ]
    };
}
pub(super) use sum_fields;

/// The five fields of a request that describe an object, and its user metadata.
macro_rules! described {
    ($input:expr) => {
        $crate::ingest::records::Described {
            content_type: $input.content_type.take(),
            content_encoding: $input.content_encoding.take().and_then(|c| answers::without_chunked(&c)),
            content_disposition: $input.content_disposition.take(),
            content_language: $input.content_language.take(),
            cache_control: $input.cache_control.take(),
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
        }
    };
}
pub(super) use described;

pub(super) fn stamp(ms: i64) -> Timestamp {
    // What the protocol shows is exact to the second in headers, so conditions must not be finer.
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

fn stamp_of_second(ms: i64) -> Timestamp {
    stamp(ms - ms.rem_euclid(1000))
}

pub(super) fn etag(text: &str) -> ETag {
    ETag::Strong(text.to_owned())
}

pub(super) fn checksum_type(coverage: Coverage) -> ChecksumType {
    ChecksumType::from_static(match coverage {
        Coverage::Composite => ChecksumType::COMPOSITE,
        Coverage::FullObject => ChecksumType::FULL_OBJECT,
    })
}

pub(super) fn checksum_algorithm(algorithm: Algorithm) -> ChecksumAlgorithm {
    ChecksumAlgorithm::from_static(algorithm.name())
}

pub(super) fn parse_algorithm(asked: Option<&ChecksumAlgorithm>) -> Result<Option<Algorithm>, Refusal> {
    asked
        .map(|asked| {
            Algorithm::parse(asked.as_str())
                .ok_or_else(|| Refusal::InvalidRequest("the checksum algorithm is not known".to_owned()))
        })
        .transpose()
}

pub(super) fn parse_coverage(asked: Option<&ChecksumType>) -> Result<Option<Coverage>, Refusal> {
    asked
        .map(|asked| match asked.as_str() {
            ChecksumType::COMPOSITE => Ok(Coverage::Composite),
            ChecksumType::FULL_OBJECT => Ok(Coverage::FullObject),
            _ => Err(Refusal::InvalidRequest("the checksum type is COMPOSITE or FULL_OBJECT".to_owned())),
        })
        .transpose()
}

/// `aws-chunked` is how the body travelled, not what the object is.
pub(super) fn without_chunked(encoding: &str) -> Option<String> {
    let kept: Vec<&str> =
        encoding.split(',').map(str::trim).filter(|e| !e.is_empty() && *e != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// What a request with a body announced about it.
pub(super) fn announced<T>(
    request: &S3Request<T>,
    len: Option<i64>,
    md5: Option<&str>,
    sums: [(Algorithm, Option<&str>); 5],
    algorithm: Option<&ChecksumAlgorithm>,
    idle: Duration,
) -> Result<Announced, Refusal> {
    let notes = request.extensions.get::<Notes>().cloned().unwrap_or_default();
    let mut announced = Announced { idle, notes, ..Announced::default() };
    announced.len = len
        .map(u64::try_from)
        .transpose()
        .map_err(|_| Refusal::InvalidArgument("the content length is negative".to_owned()))?;
    announced.content_md5(md5)?;
    for (algorithm, text) in sums {
        announced.sum(algorithm, text)?;
    }
    announced.also.extend(parse_algorithm(algorithm)?);
    if let Some(trailers) = &request.trailing_headers {
        let names = request.headers.get_all("x-amz-trailer");
        let names = names.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let promised: Vec<Algorithm> = names
            .filter_map(|name| {
                Algorithm::ALL.into_iter().find(|a| a.header().eq_ignore_ascii_case(name.trim()))
            })
            .collect();
        announced.also.extend(&promised);
        announced.trailers = Some((trailers.clone(), promised));
    }
    Ok(announced)
}

/// `If-Match` and `If-None-Match` of a request that writes.
pub(super) fn condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> Result<Condition, Refusal> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Any),
        (Some(wanted), None) => Ok(Condition::Present(wanted.as_etag().map(|etag| etag.value().to_owned()))),
        (None, Some(unwanted)) if unwanted.is_any() => Ok(Condition::Absent),
        (_, Some(_)) => Err(Refusal::InvalidRequest("only If-None-Match: * is supported, alone".to_owned())),
    }
}

/// The four conditions of a request that reads.
pub(super) fn check_read(
    object: &ObjectRecord,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
    modified_since: Option<&Timestamp>,
    unmodified_since: Option<&Timestamp>,
) -> Result<(), Refusal> {
    let is = |condition: &ETagCondition| condition.as_etag().is_none_or(|etag| etag.value() == object.etag);
    let modified = stamp_of_second(object.modified_ms);
    match (if_match, unmodified_since) {
        (Some(wanted), _) if !is(wanted) => return Err(Refusal::PreconditionFailed),
        (None, Some(since)) if modified > *since => return Err(Refusal::PreconditionFailed),
        _ => {}
    }
    match (if_none_match, modified_since) {
        (Some(unwanted), _) if is(unwanted) => Err(Refusal::NotModified),
        (None, Some(since)) if modified <= *since => Err(Refusal::NotModified),
        _ => Ok(()),
    }
}

/// The bytes that a read asks for, and whether they are only a part of the object.
pub(super) fn span(
    object: &ObjectRecord,
    range: Option<&dto::Range>,
    part_number: Option<i32>,
) -> Result<(std::ops::Range<u64>, bool), Refusal> {
    match (range, part_number) {
        (Some(_), Some(_)) => {
            Err(Refusal::InvalidRequest("a range and a part number exclude each other".to_owned()))
        }
        (Some(range), None) => Ok((range.check(object.len).map_err(|_| Refusal::InvalidRange)?, true)),
        (None, None) => Ok((0..object.len, false)),
        (None, Some(number)) => {
            let mut start = 0;
            for (at, segment) in object.segments.iter().enumerate() {
                // Parts are counted, not looked up: an upload may have left numbers out.
                if i32::try_from(at + 1) == Ok(number) {
                    return Ok((start..start + segment.len, true));
                }
                start += segment.len;
            }
            Err(Refusal::InvalidRange)
        }
    }
}

/// The part count of an object of parts, for composite sums and for answers about a part.
pub(super) fn part_count(object: &ObjectRecord) -> Option<i32> {
    object.upload.as_ref().map(|_| i32::try_from(object.segments.len()).unwrap_or(i32::MAX))
}

/// How many parts the sums of an object are made of, if they are composite.
pub(super) fn composed_of(object: &ObjectRecord) -> Option<usize> {
    (object.coverage == Coverage::Composite).then_some(object.segments.len())
}

pub(super) fn wants_sums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// User metadata as headers in a fixed order; what headers cannot carry plainly is left for the protocol to encode.
pub(super) fn metadata(described: &Described) -> (HeaderMap, Option<dto::Metadata>) {
    let mut headers = HeaderMap::new();
    let mut rest = dto::Metadata::new();
    for (name, value) in &described.metadata {
        let header = HeaderName::from_bytes(format!("x-amz-meta-{name}").as_bytes());
        match (header, HeaderValue::from_str(value)) {
            (Ok(header), Ok(text)) if value.is_ascii() => {
                headers.insert(header, text);
            }
            _ => {
                rest.insert(name.clone(), value.clone());
            }
        }
    }
    (headers, (!rest.is_empty()).then_some(rest))
}

/// The parts and sums that a completion names.
pub(super) fn completion(input: &mut dto::CompleteMultipartUploadInput) -> Result<Completion, Refusal> {
    let mut asked = Completion {
        len: input
            .mpu_object_size
            .map(u64::try_from)
            .transpose()
            .map_err(|_| Refusal::InvalidArgument("x-amz-mp-object-size is negative".to_owned()))?,
        condition: condition(input.if_match.as_ref(), input.if_none_match.as_ref())?,
        ..Completion::default()
    };
    for (algorithm, text) in sum_fields!(input) {
        if let Some(text) = text {
            // A composite sum may be written with its part count.
            let raw = text.split_once('-').map_or(text, |(raw, _)| raw);
            asked.sums.insert(algorithm, algorithm.decode(raw)?);
        }
    }
    for part in input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default() {
        let mut sums = Sums::new();
        for (algorithm, text) in sum_fields!(part) {
            if let Some(text) = text {
                sums.insert(algorithm, algorithm.decode(text)?);
            }
        }
        asked.parts.push(super::multipart::NamedPart {
            number: part.part_number.map_or(0, i64::from),
            etag: part.e_tag.map(|etag| etag.value().to_owned()),
            sums,
        });
    }
    Ok(asked)
}

/// An entry of a listing.
pub(super) fn entry(record: &ObjectRecord, key: String) -> dto::Object {
    let algorithms: Vec<_> = record.sums.keys().map(|algorithm| checksum_algorithm(*algorithm)).collect();
    dto::Object {
        key: Some(key),
        size: Some(i64::try_from(record.len).unwrap_or(i64::MAX)),
        e_tag: Some(etag(&record.etag)),
        last_modified: Some(stamp(record.modified_ms)),
        checksum_algorithm: (!algorithms.is_empty()).then_some(algorithms),
        checksum_type: (!record.sums.is_empty()).then(|| checksum_type(record.coverage)),
        storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
        ..dto::Object::default()
    }
}

/// An entry of a listing of parts.
pub(super) fn part_entry(record: &super::records::PartRecord) -> dto::Part {
    let segment = &record.segment;
    let mut part = dto::Part {
        part_number: Some(i32::from(segment.number)),
        size: Some(i64::try_from(segment.len).unwrap_or(i64::MAX)),
        e_tag: Some(etag(&super::sums::hex(&segment.md5))),
        last_modified: Some(stamp(record.modified_ms)),
        ..dto::Part::default()
    };
    put_sums!(part, &segment.sums, None);
    part
}
