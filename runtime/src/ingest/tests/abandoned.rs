//! Multipart uploads that devices left: removed by their age, by both clocks, and no other.

use std::time::Duration;

use tidegate_core::time::{Mono, Now, Wall};

use super::super::multipart::Upload;
use super::super::records::UploadRecord;
use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn only_what_stood_still_for_so_long_is_removed_with_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let create = || spool.create_upload("bkt", "k", Described::default(), None, None);
        let upload = create().await.unwrap();
        part(&spool, &upload, 1, &content(1, MIB)).await.unwrap();
        put(&spool, "whole", &content(2, MIB)).await.unwrap();
        assert_eq!(spool.expire_uploads("bkt", HOUR).await.unwrap(), 0);
        assert_eq!((spool.list_uploads("bkt").len(), spool.bytes_stored()), (1, 2 * MIB as u64));
        assert_eq!(spool.expire_uploads("bkt", Duration::ZERO).await.unwrap(), 1);
        assert_eq!((spool.list_uploads("bkt").len(), spool.bytes_stored()), (0, MIB as u64));
        let refused = part(&spool, &upload, 2, &content(1, 10)).await.unwrap_err();
        assert!(matches!(refused, Refusal::NoSuchUpload), "{refused}");
        // An upload of an earlier life is found as well.
        create().await.unwrap();
        drop(spool);
        let (spool, opened) = open(dir.path()).await;
        assert_eq!(opened.uploads, 1);
        assert_eq!(spool.expire_uploads("bkt", HOUR).await.unwrap(), 0);
        assert_eq!(spool.expire_uploads("bkt", Duration::ZERO).await.unwrap(), 1);
        assert_eq!(spool.head("bkt", "whole").await.unwrap().len, MIB as u64);
    });
}

#[test]
fn a_wall_clock_that_jumps_removes_nothing_that_came_in_this_life() {
    let record = UploadRecord {
        bucket: "bkt".to_owned(),
        key: "k".to_owned(),
        described: Described::default(),
        algorithm: None,
        coverage: Coverage::Composite,
        initiated_ms: 0,
    };
    let upload = Upload::new("id".to_owned(), record);
    let at = |wall: Duration, mono: Duration| Now { wall: Wall(0).after(wall), mono: Mono(0).after(mono) };
    let year = HOUR * 24 * 365;
    assert!(!upload.is_abandoned(at(HOUR / 2, HOUR), HOUR));
    assert!(
        upload.is_abandoned(at(HOUR, Duration::ZERO), HOUR),
        "of an earlier life: the wall clock is all there is"
    );
    upload.touch(Mono(0).after(HOUR));
    assert!(!upload.is_abandoned(at(year, HOUR + HOUR / 2), HOUR));
    assert!(upload.is_abandoned(at(year, 2 * HOUR), HOUR));
}
