//! Owns the answers to listings of objects, uploads and parts. Reads the index only.

use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::*;

use super::answers::{self, stamp};
use super::limits;
use super::listing::{Page, Query, page, url_encoded};
use super::refusal::Refusal;
use super::spool::Spool;
use crate::seam::Seams;

impl<S: Seams> Spool<S> {
    pub(super) fn objects_page(&self, input: ListObjectsV2Input) -> Result<ListObjectsV2Output, Refusal> {
        let token = input.continuation_token.as_deref().map(read_token).transpose()?;
        let after = token.or_else(|| input.start_after.clone()).unwrap_or_default();
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().unwrap_or_default();
        let max = page_size(input.max_keys)?;
        let spell = Spell::of(input.encoding_type.as_ref());
        let query = Query { prefix: &prefix, delimiter: &delimiter, after: &after, max };
        let page = self.objects_from(&input.bucket, &query, spell)?;
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(spell.write(&prefix)),
            delimiter: input.delimiter.map(|d| spell.write(&d)),
            start_after: input.start_after.map(|s| spell.write(&s)),
            max_keys: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            key_count: Some(i32::try_from(page.entries.len() + page.prefixes.len()).unwrap_or(i32::MAX)),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_deref().map(|next| URL_SAFE_NO_PAD.encode(next)),
            common_prefixes: Some(spell.prefixes(page.prefixes)),
            contents: Some(page.entries),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) fn objects_page_v1(&self, input: ListObjectsInput) -> Result<ListObjectsOutput, Refusal> {
        let after = input.marker.clone().unwrap_or_default();
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().unwrap_or_default();
        let max = page_size(input.max_keys)?;
        let spell = Spell::of(input.encoding_type.as_ref());
        let query = Query { prefix: &prefix, delimiter: &delimiter, after: &after, max };
        let page = self.objects_from(&input.bucket, &query, spell)?;
        Ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(spell.write(&prefix)),
            marker: Some(spell.write(&after)),
            delimiter: input.delimiter.map(|d| spell.write(&d)),
            max_keys: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next.map(|next| spell.write(&next)),
            common_prefixes: Some(spell.prefixes(page.prefixes)),
            contents: Some(page.entries),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    fn objects_from(&self, bucket: &str, query: &Query<'_>, spell: Spell) -> Result<Page<Object>, Refusal> {
        let index = self.inner.index();
        let found = index.buckets.get(bucket).ok_or(Refusal::NoSuchBucket)?;
        let from = if query.prefix > query.after {
            Bound::Included(query.prefix)
        } else {
            Bound::Excluded(query.after)
        };
        let from = if query.prefix.is_empty() && query.after.is_empty() { Bound::Unbounded } else { from };
        let keys = found.objects.range::<str, _>((from, Bound::Unbounded));
        let page = page(query, keys.map(|(key, object)| (key.as_str(), object)));
        let entries =
            page.entries.iter().map(|o| answers::entry(&o.record, spell.write(&o.record.key))).collect();
        Ok(Page { entries, prefixes: page.prefixes, next: page.next })
    }

    pub(super) fn uploads_page(
        &self,
        input: ListMultipartUploadsInput,
    ) -> Result<ListMultipartUploadsOutput, Refusal> {
        if !self.has_bucket(&input.bucket) {
            return Err(Refusal::NoSuchBucket);
        }
        let prefix = input.prefix.clone().unwrap_or_default();
        let max = page_size(input.max_uploads)?;
        let spell = Spell::of(input.encoding_type.as_ref());
        let after = input.key_marker.clone().unwrap_or_default();
        let after_id = input.upload_id_marker.clone().unwrap_or_default();
        let beyond = |key: &str, id: &str| {
            after.is_empty()
                || key > after.as_str()
                || !after_id.is_empty() && key == after && id > after_id.as_str()
        };
        let mut found = self.inner.uploads(&input.bucket);
        found.retain(|u| u.record.key.starts_with(&prefix) && beyond(&u.record.key, &u.id));
        let mut prefixes: Vec<String> = Vec::new();
        if let Some(delimiter) = input.delimiter.as_deref().filter(|d| !d.is_empty()) {
            found.retain(|u| match u.record.key[prefix.len()..].find(delimiter) {
                Some(at) => {
                    let group = &u.record.key[..prefix.len() + at + delimiter.len()];
                    if prefixes.last().is_none_or(|last| last != group) {
                        prefixes.push(group.to_owned());
                    }
                    false
                }
                None => true,
            });
        }
        let more = found.len() > max;
        found.truncate(max);
        let last = found.last().filter(|_| more);
        let uploads = found.iter().map(|upload| MultipartUpload {
            key: Some(spell.write(&upload.record.key)),
            upload_id: Some(upload.id.clone()),
            initiated: Some(stamp(upload.record.initiated_ms)),
            checksum_algorithm: upload.record.algorithm.map(answers::checksum_algorithm),
            checksum_type: upload.record.algorithm.map(|_| answers::checksum_type(upload.record.coverage)),
            ..Default::default()
        });
        Ok(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            next_key_marker: last.map(|upload| spell.write(&upload.record.key)),
            next_upload_id_marker: last.map(|upload| upload.id.clone()),
            is_truncated: Some(more),
            max_uploads: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            bucket: Some(input.bucket),
            prefix: Some(spell.write(&prefix)),
            delimiter: input.delimiter.map(|d| spell.write(&d)),
            common_prefixes: Some(spell.prefixes(prefixes)),
            key_marker: input.key_marker.map(|k| spell.write(&k)),
            upload_id_marker: input.upload_id_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) fn parts_page(&self, input: ListPartsInput) -> Result<ListPartsOutput, Refusal> {
        let upload = self.inner.upload(&input.bucket, &input.key, &input.upload_id)?;
        let max = page_size(input.max_parts)?;
        let marker = input.part_number_marker.unwrap_or(0).max(0);
        let parts = upload.parts();
        let beyond = parts.values().filter(|part| i32::from(part.record.segment.number) > marker);
        let more = beyond.clone().count() > max;
        let page: Vec<Part> = beyond.take(max).map(|part| answers::part_entry(&part.record)).collect();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(marker),
            next_part_number_marker: page.last().and_then(|part| part.part_number),
            max_parts: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            is_truncated: Some(more),
            parts: Some(page),
            checksum_algorithm: upload.record.algorithm.map(answers::checksum_algorithm),
            checksum_type: upload.record.algorithm.map(|_| answers::checksum_type(upload.record.coverage)),
            ..Default::default()
        })
    }
}

/// How keys are written in an answer.
#[derive(Clone, Copy)]
enum Spell {
    Plain,
    Url,
}

impl Spell {
    fn of(asked: Option<&EncodingType>) -> Spell {
        if asked.is_some_and(|asked| asked.as_str() == EncodingType::URL) { Spell::Url } else { Spell::Plain }
    }

    fn write(self, text: &str) -> String {
        match self {
            Spell::Plain => text.to_owned(),
            Spell::Url => url_encoded(text),
        }
    }

    fn prefixes(self, prefixes: Vec<String>) -> Vec<CommonPrefix> {
        prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(self.write(prefix)) }).collect()
    }
}

fn page_size(asked: Option<i32>) -> Result<usize, Refusal> {
    let asked = asked.map_or(Ok(limits::PAGE_MAX), usize::try_from);
    asked
        .map(|asked| asked.min(limits::PAGE_MAX))
        .map_err(|_| Refusal::InvalidArgument("a page has 0 to 1000 entries".to_owned()))
}

fn read_token(token: &str) -> Result<String, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::InvalidArgument("the continuation token is not one of ours".to_owned()))
}
