//! A store does what stores do, and remembers what it did.

use tidegate_core::digest::Sha256;
use tidegate_core::id::{ObjectKey, PartNo, UploadId};
use tidegate_core::object::{ObjectOp, ObjectReply, PartFacts, Span, Store, Verb};
use tidegate_core::outcome::{Fault, What};

use super::{Bucket, Content, KeyPast, PartPast, UploadFate};
use crate::scenario::Flavour;

const MIB: u64 = 1 << 20;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

fn file(id: u64, len: u64) -> Content {
    Content { id, len, facts: None }
}

/// An edge with one file of 12 MiB, and an empty cloud.
fn stores(flavour: Flavour) -> (Bucket, Bucket) {
    let mut edge = Bucket::new(Flavour::Full);
    edge.put(&key("a.mcap"), file(1, 12 * MIB), None);
    (edge, Bucket::new(flavour))
}

fn ask(cloud: &mut Bucket, edge: &Bucket, verb: Verb) -> Result<ObjectReply, Fault> {
    cloud.run(&ObjectOp { store: Store::Cloud, key: key("s/a.mcap"), verb }, Some(edge))
}

fn create(cloud: &mut Bucket, edge: &Bucket) -> UploadId {
    let sha256 = file(1, 12 * MIB).sha256();
    match ask(cloud, edge, Verb::Create { sha256 }) {
        Ok(ObjectReply::Created(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn send(cloud: &mut Bucket, edge: &Bucket, upload: &UploadId, part: u16) -> (PartNo, PartFacts) {
    let offset = u64::from(part - 1) * 8 * MIB;
    let span = Span { offset, len: (12 * MIB - offset).min(8 * MIB) };
    let (part, upload, source) = (PartNo(part), upload.clone(), key("a.mcap"));
    match ask(cloud, edge, Verb::PutPart { upload, part, source, span }) {
        Ok(ObjectReply::PartStored(facts)) => (part, facts),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_become_the_file_they_were_cut_from_and_a_second_complete_does_nothing() {
    for flavour in [Flavour::Full, Flavour::Composite, Flavour::Tags, Flavour::Opaque] {
        let (edge, mut cloud) = stores(flavour);
        let upload = create(&mut cloud, &edge);
        send(&mut cloud, &edge, &upload, 1);
        let parts = vec![send(&mut cloud, &edge, &upload, 1), send(&mut cloud, &edge, &upload, 2)];
        let complete = Verb::Complete { upload: upload.clone(), parts };
        assert!(matches!(ask(&mut cloud, &edge, complete.clone()), Ok(ObjectReply::Completed(_))));
        assert_eq!(ask(&mut cloud, &edge, complete), Err(Fault::Vanished(What::Upload)));

        assert_eq!(cloud.content(&key("s/a.mcap")), Some(&file(1, 12 * MIB)));
        assert!(cloud.holds(&key("s/a.mcap"), 12 * MIB, file(1, 12 * MIB).sha256()));
        let past = &cloud.past.uploads[&upload];
        assert_eq!((past.fate, past.completes), (UploadFate::Completed, 1));
        assert_eq!(past.parts[&PartNo(1)], PartPast { times: 2, bytes: 16 * MIB });
        assert_eq!(past.parts[&PartNo(2)], PartPast { times: 1, bytes: 4 * MIB });
        assert_eq!(cloud.past.bytes_of_parts(&key("s/a.mcap")), 20 * MIB);
        let at_key = KeyPast { uploads: 1, completed: 1, puts: 0, deletes: 0 };
        assert_eq!(cloud.past.keys[&key("s/a.mcap")], at_key);
    }
}

#[test]
fn parts_in_the_wrong_order_are_no_file() {
    let (edge, mut cloud) = stores(Flavour::Full);
    let upload = create(&mut cloud, &edge);
    let parts = vec![send(&mut cloud, &edge, &upload, 1)];
    let complete = Verb::Complete { upload, parts };
    assert!(matches!(ask(&mut cloud, &edge, complete), Ok(ObjectReply::Completed(_))));
    assert_eq!(cloud.content(&key("s/a.mcap")), None);
    assert_ne!(cloud.objects[&key("s/a.mcap")].sha256(), file(1, 12 * MIB).sha256());
}

#[test]
fn uploads_that_are_aborted_or_dropped_are_no_longer_open_and_stay_known() {
    let (edge, mut cloud) = stores(Flavour::Tags);
    let [first, second] = [create(&mut cloud, &edge), create(&mut cloud, &edge)];
    assert_eq!(cloud.open_at(&key("s/a.mcap")).collect::<Vec<_>>(), [&first, &second]);
    ask(&mut cloud, &edge, Verb::Abort { upload: first.clone() }).expect("it is open");
    assert_eq!(cloud.drop_uploads(), 1);
    assert_eq!(cloud.open_at(&key("s/a.mcap")).count(), 0);
    assert_eq!(cloud.past.uploads[&first].fate, UploadFate::Aborted);
    assert_eq!(cloud.past.uploads[&second].fate, UploadFate::Dropped);
    let third = create(&mut cloud, &edge);
    assert!(![first, second].contains(&third), "a name is never given twice");
}

#[test]
fn a_frozen_key_takes_nothing_but_what_it_holds() {
    let (mut edge, _) = stores(Flavour::Full);
    edge.frozen.insert(key("a.mcap"));
    edge.frozen.insert(key("b.mcap"));
    assert!(edge.offer(&key("a.mcap"), file(1, 12 * MIB), None), "the same again");
    assert!(!edge.offer(&key("a.mcap"), file(2, 12 * MIB), None), "something else");
    assert_eq!(edge.content(&key("a.mcap")), Some(&file(1, 12 * MIB)));
    assert!(edge.offer(&key("b.mcap"), file(2, 1), Some(Sha256::of(b"x"))), "nothing is there to be kept");
    edge.frozen.clear();
    assert!(edge.offer(&key("a.mcap"), file(2, 12 * MIB), None), "thawed");
    assert_eq!(edge.content(&key("a.mcap")), Some(&file(2, 12 * MIB)));
}

#[test]
fn what_third_parties_touched_is_known() {
    let (mut edge, _) = stores(Flavour::Full);
    assert!(edge.past.tampered.is_empty());
    edge.overwrite(&key("a.mcap"), file(9, 1));
    assert_eq!(edge.content(&key("a.mcap")), Some(&file(9, 1)));
    assert!(edge.remove(&key("a.mcap")));
    assert!(!edge.remove(&key("b.mcap")));
    assert!(edge.past.tampered.iter().eq([&key("a.mcap"), &key("b.mcap")]));
}
