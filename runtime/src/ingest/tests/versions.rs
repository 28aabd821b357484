//! Owns the tests of what other programs left in the object store: records of a newer version, and who may read it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_record_of_a_newer_version_is_refused_and_never_taken_for_a_damaged_one() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let spool = with_bucket(dir.path()).await;
        put(&spool, "a", &content(1, 2_000)).await.unwrap();
        drop(spool);
        let folder = dir.path().join("buckets/bkt");
        for name in [".bucket".to_owned(), sums::hex(&sha(b"a"))] {
            let record = folder.join(&name);
            let ours = std::fs::read(&record).unwrap();
            let mut newer = ours.clone();
            newer[7] = b'2';
            std::fs::write(&record, &newer).unwrap();
            let refused = Spool::open(RealSeams::new(), dir.path().to_path_buf()).await.unwrap_err();
            let text = refused.to_string();
            assert!(text.contains(&name) && text.contains("run the tidegate that wrote it"), "{text}");
            assert_eq!(std::fs::read(&record).unwrap(), newer, "it is left as it is");
            std::fs::write(&record, ours).unwrap();
        }
        let (_, opened) = open(dir.path()).await;
        assert_eq!((opened.objects, opened.damaged.len()), (1, 0), "nothing was lost meanwhile");
    });
}

#[test]
fn only_the_owner_may_enter_the_store_also_where_others_could_before() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("objects");
        let mode = || std::fs::metadata(&root).unwrap().permissions().mode() & 0o777;
        drop(open(&root).await);
        assert_eq!(mode(), 0o700, "a new one");
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        drop(open(&root).await);
        assert_eq!(mode(), 0o700, "an existing one");
    });
}
