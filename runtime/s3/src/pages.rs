//! Owns the operations whose answers come in pages: what the store holds of an upload, and which uploads are open.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{MultipartUpload, Part};
use tidegate_core::id::{ETag, ObjectKey, PartNo, UploadId};
use tidegate_core::object::{ListedPart, ObjectReply};
use tidegate_runtime::object::checksum;
use tidegate_runtime::seam::Seams;

use crate::store::{CloudStore, LOST, Stop};

/// Most pages of one listing. All parts fit ten of the usual thousand; a store that pages on for ever is cut off.
const PAGES_MAX: usize = 1000;

impl<S: Seams> CloudStore<S> {
    pub(crate) async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<ObjectReply, Stop> {
        let mut parts = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let asked = self.client.list_parts().bucket(&self.bucket).key(key.as_str());
            let asked = asked.upload_id(upload.as_str()).set_part_number_marker(marker.clone());
            // An upload that ends between two pages takes with it what was listed so far.
            let page = asked.send().await.map_err(|error| self.stop(&error))?;
            for part in page.parts.unwrap_or_default() {
                parts.push(listed(&part).ok_or(LOST)?);
            }
            if !page.is_truncated.unwrap_or(false) {
                parts.sort_by_key(|part| part.part);
                return Ok(ObjectReply::Parts(Some(parts)));
            }
            let next = page.next_part_number_marker;
            if next.is_none() || next == marker {
                return Err(LOST);
            }
            marker = next;
        }
        Err(LOST)
    }

    pub(crate) async fn list_uploads(&self, key: &ObjectKey) -> Result<ObjectReply, Stop> {
        let mut open: Vec<(Option<DateTime>, String)> = Vec::new();
        let mut marker: (Option<String>, Option<String>) = (None, None);
        for _ in 0..PAGES_MAX {
            let asked = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(key.as_str());
            let asked =
                asked.set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone()).send().await;
            let page = asked.map_err(|error| self.stop(&error))?;
            open.extend(page.uploads.unwrap_or_default().into_iter().filter_map(|found| of_key(found, key)));
            if !page.is_truncated.unwrap_or(false) {
                open.sort_by(|a, b| (moment(a.0), &a.1).cmp(&(moment(b.0), &b.1)));
                return Ok(ObjectReply::Uploads(open.into_iter().map(|(_, id)| UploadId::new(id)).collect()));
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if next.0.is_none() || next == marker {
                return Err(LOST);
            }
            marker = next;
        }
        Err(LOST)
    }
}

fn listed(part: &Part) -> Option<ListedPart> {
    Some(ListedPart {
        part: PartNo(part.part_number.and_then(|number| u16::try_from(number).ok())?),
        etag: ETag::new(part.e_tag.as_deref()?),
        len: part.size.and_then(|len| u64::try_from(len).ok())?,
        sha256: part.checksum_sha256.as_deref().and_then(checksum::from_base64),
    })
}

/// A prefix finds longer keys as well: only exactly this one counts.
fn of_key(found: MultipartUpload, key: &ObjectKey) -> Option<(Option<DateTime>, String)> {
    let id = found.upload_id.filter(|_| found.key.as_deref() == Some(key.as_str()))?;
    Some((found.initiated, id))
}

fn moment(at: Option<DateTime>) -> Option<(i64, u32)> {
    at.map(|at| (at.secs(), at.subsec_nanos()))
}
