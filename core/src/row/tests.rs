//! Round trips of every key and record, their order, and the bytes that old files hold.

mod policy;
mod roster;

use super::*;
use crate::digest::Sha256;
use crate::id::Boot;
use crate::id::{ETag, Fence, PolicySetId, UploadId};
use crate::object::{Flaw, McapFacts};
use crate::outcome::{Fault, What};
use crate::policy::Memo;
use crate::time::Wall;
use proptest::prelude::*;
use std::string::String;
use std::vec;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| std::format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).expect("hex")).collect()
}

fn task_id(text: &str) -> TaskId {
    TaskId::new(text).expect("legal")
}

fn wire_id(text: &str) -> WireId {
    WireId::new(text).expect("legal")
}

fn object_key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("legal")
}

fn fence() -> Fence {
    Fence { job: JobId(3), attempt: 2, boot: Boot(4) }
}

fn source() -> Source {
    let sidecar = SidecarSource { key: object_key("e/a.json"), len: 5, sha256: Sha256([2; 32]) };
    Source { key: object_key("e/a.mcap"), len: 9, sha256: Sha256([1; 32]), sidecar: Some(sidecar) }
}

fn golden_rows() -> Vec<Row> {
    let task = TaskRow {
        id: task_id("T"),
        device: DeviceId::new("d1").expect("legal"),
        attempt: 2,
        wire: wire_id("T.2"),
        state: TaskState::Uploading,
        config: Some("{}".into()),
        created_at: Wall(1),
        ready_at: Some(Wall(2)),
        started_at: Some(Wall(3)),
        completed_at: None,
        error: Some("e".into()),
        begun: true,
        token_sha256: Some(Sha256([7; 32])),
        recording: Some(RecordingFacts { started_at: Some(Wall(-1)), len: Some(9), ..Default::default() }),
        updated_at: Wall(4),
        earlier: None,
        uploading_at: None,
        episode: None,
    };
    let episode = EpisodeRow {
        id: EpisodeId(1),
        public_id: "u".into(),
        device: DeviceId::new("d1").expect("legal"),
        task: task_id("T"),
        wire: wire_id("T"),
        key: object_key("e/a.mcap"),
        sidecar: source().sidecar,
        len: 9,
        sha256: Sha256([1; 32]),
        recorded_at: Some(Wall(5)),
        duration_ms: Some(6),
        messages: Some(7),
        ingested_at: Wall(8),
        qa: Qa::InspectorApproved,
        qa_reason: Some("r".into()),
        qa_at: Some(Wall(9)),
        sync: SyncMark::Synced { job: JobId(3), key: object_key("c"), at: Wall(10) },
        late: true,
        removed_at: Some(Wall(11)),
        recorder_version: Some("v".into()),
        inspection: None,
        tries: 0,
    };
    let job = JobRow {
        id: JobId(3),
        episode: EpisodeId(1),
        device: DeviceId::new("d1").expect("legal"),
        state: JobState::Pending {
            due: Wall(1),
            cause: Cause::Retry(Fault::Throttled { retry_after_ms: Some(2) }),
        },
        claims: 1,
        spent: 2,
        source: source(),
        key: object_key("c"),
        queued_at: Wall(3),
        approved_at: Wall(4),
        last_fault: Some(Fault::Vanished(What::Part)),
        last_ended_at: Some(Wall(5)),
        ruled_by: Some(PolicySetId([9; 32])),
        bytes_sent: 6,
        first_claimed_at: Some(Wall(7)),
        note: Some("n".into()),
        memo: None,
        retry_delay_ms: None,
    };
    let upload = UploadRow {
        fence: fence(),
        key: object_key("c"),
        source: source(),
        plan: Plan { part_size: 5, parts: 2 },
        phase: Phase::Open { upload: UploadId::new("up") },
        sidecar_stored: true,
        restarts: 1,
        look_first: true,
    };
    vec![
        Row::Meta(MetaRow { next_episode: 2, next_job: 300, ..MetaRow::default() }),
        Row::Task(task),
        Row::Episode(episode),
        Row::Job(job),
        Row::Upload(upload),
        Row::Part(PartFacts { etag: ETag::new("t"), sha256: Sha256([3; 32]), len: 4 }),
        Row::Alias(AliasRow { task: task_id("T") }),
        Row::Binding(BindingRow {
            episode: Some(EpisodeId(1)),
            ..BindingRow::new(task_id("T"), wire_id("T.2"))
        }),
    ]
}

/// What version 1 wrote. A change here is a change of files that exist: add an optional field instead.
const GOLDEN: [(Kind, &str); 8] = [
    (Kind::Meta, "820219012c"),
    (
        Kind::Task,
        concat!(
            "8f61546264310263542e32820380627b7d010203f66165f5582007070707070707070707070707070707070707070707",
            "070707070707070707078520f6f6f60904"
        ),
    ),
    (
        Kind::Episode,
        concat!(
            "940161756264316154615468652f612e6d6361708368652f612e6a736f6e055820020202020202020202020202020202",
            "020202020202020202020202020202020209582001010101010101010101010101010101010101010101010101010101",
            "01010101050607088203806172098202830361630af50b6176"
        ),
    ),
    (
        Kind::Job,
        concat!(
            "900301626431820082018201818201810201028468652f612e6d63617009582001010101010101010101010101010101",
            "010101010101010101010101010101018368652f612e6a736f6e05582002020202020202020202020202020202020202",
            "020202020202020202020202026163030482068182028005582009090909090909090909090909090909090909090909",
            "090909090909090909090607616e"
        ),
    ),
    (
        Kind::Upload,
        concat!(
            "888303020461638468652f612e6d63617009582001010101010101010101010101010101010101010101010101010101",
            "010101018368652f612e6a736f6e05582002020202020202020202020202020202020202020202020202020202020202",
            "02820502820181627570f501f5"
        ),
    ),
    (Kind::Part, "8361745820030303030303030303030303030303030303030303030303030303030303030304"),
    (Kind::Alias, "816154"),
    (Kind::Binding, "83615463542e3201"),
];

#[test]
fn records_of_version_1_read_and_write_the_same_bytes() {
    for (row, (kind, golden)) in golden_rows().iter().zip(GOLDEN) {
        assert_eq!(row.kind(), kind);
        assert_eq!(hex(&row.to_bytes()), golden, "{kind:?}");
        assert_eq!(Row::from_bytes(kind, &bytes(golden)).as_ref(), Ok(row), "{kind:?}");
    }
}

#[test]
fn an_inspection_has_these_bytes_and_a_record_without_one_is_as_long_as_before() {
    let facts = McapFacts {
        flaw: Some(Flaw::ChunkCrc),
        messages: 7,
        first_ns: Some(1),
        last_ns: Some(2),
        channels: 3,
        chunks: 4,
    };
    let inspection =
        Inspection { at: Wall(12), doubt: Some(Doubt::Flaw(Flaw::ChunkCrc)), facts: Some(facts) };
    let Some(Row::Episode(mut row)) = golden_rows().into_iter().nth(2) else { panic!("an episode") };
    row.inspection = Some(inspection);
    let row = Row::Episode(row);
    let (_, old) = GOLDEN[2];
    let written = hex(&row.to_bytes());
    let old = old.strip_prefix("94").expect("twenty places");
    let expected = std::format!("95{old}830c820081820580868205800701020304");
    assert_eq!(written, expected);
    assert_eq!(Row::from_bytes(Kind::Episode, &bytes(&written)), Ok(row));
}

#[test]
fn a_task_that_was_tried_before_has_these_bytes_and_one_that_was_not_is_as_long_as_before() {
    let Some(Row::Task(mut row)) = golden_rows().into_iter().nth(1) else { panic!("a task") };
    row.earlier = Some(vec![EarlierAttempt {
        attempt: 1,
        ready_at: Some(Wall(1)),
        started_at: None,
        left_at: Wall(3),
        owed: true,
        asked: 2,
        token_sha256: None,
    }]);
    row.uploading_at = Some(Wall(5));
    let mut with_token = row.clone();
    with_token.earlier.iter_mut().flatten().for_each(|entry| entry.token_sha256 = Some(Sha256([9; 32])));
    let row = Row::Task(row);
    let (_, old) = GOLDEN[1];
    let written = hex(&row.to_bytes());
    let old = old.strip_prefix("8f").expect("fifteen places");
    assert_eq!(written, std::format!("91{old}81860101f603f50205"));
    assert_eq!(Row::from_bytes(Kind::Task, &bytes(&written)), Ok(row));
    let row = Row::Task(with_token);
    let written = hex(&row.to_bytes());
    assert_eq!(written, std::format!("91{old}81870101f603f5025820{}05", "09".repeat(32)));
    assert_eq!(Row::from_bytes(Kind::Task, &bytes(&written)), Ok(row));
}

#[test]
fn words_for_flaws_and_doubts_are_all_different_and_their_ordinals_count_up() {
    let more = [Doubt::NoMessages, Doubt::MessageCountDiffers, Doubt::CopyDiffers, Doubt::CopyGone];
    let all: Vec<Doubt> = Flaw::ALL.into_iter().map(Doubt::Flaw).chain(more).collect();
    let codes: std::collections::BTreeSet<&str> = all.iter().map(|doubt| doubt.code()).collect();
    assert_eq!(codes.len(), all.len());
    for (n, flaw) in Flaw::ALL.into_iter().enumerate() {
        let written = minicbor::to_vec(flaw).expect("writing to a vector cannot fail");
        assert_eq!(hex(&written), std::format!("82{n:02x}80"), "{flaw:?}");
    }
}

#[test]
fn keys_have_these_bytes() {
    for (key, golden) in [
        (Key::Meta, ""),
        (Key::Task(task_id("T")), "54"),
        (Key::Episode(EpisodeId(258)), "0000000000000102"),
        (Key::Job(JobId(1)), "0000000000000001"),
        (Key::Upload(JobId(1)), "0000000000000001"),
        (Key::Part(JobId(1), PartNo(258)), "00000000000000010102"),
        (Key::Alias(wire_id("T.2")), "542e32"),
        (Key::Binding(object_key("a/b")), "612f62"),
        (Key::Policy, ""),
    ] {
        assert_eq!(hex(&key.to_bytes()), golden, "{key:?}");
        assert_eq!(Key::from_bytes(key.kind(), &bytes(golden)), Ok(key));
    }
}

#[test]
fn ordinals_of_kinds_never_change() {
    let ordinals: Vec<u8> = Kind::ALL.iter().map(|kind| *kind as u8).collect();
    assert_eq!(ordinals, [1, 2, 3, 4, 5, 7, 8, 11, 13, 14, 15, 16]);
}

#[test]
fn broken_bytes_are_refused_and_say_of_which_table() {
    for kind in Kind::ALL {
        assert_eq!(Row::from_bytes(kind, &[0xff, 0x00]), Err(BadRow { kind, why: "content" }));
    }
    for (kind, bytes) in [
        (Kind::Task, &b"a/b"[..]),
        (Kind::Task, &[0xff]),
        (Kind::Episode, &[1, 2]),
        (Kind::Part, &[0; 9]),
        (Kind::Alias, b""),
        (Kind::Binding, b"a//b"),
        (Kind::Module, &[0; 31]),
        (Kind::Token, &[0; 33]),
        (Kind::Device, b"a b"),
    ] {
        assert_eq!(Key::from_bytes(kind, bytes), Err(BadRow { kind, why: "key" }));
    }
}

fn text() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,12}"
}

fn wall() -> impl Strategy<Value = Wall> {
    any::<i64>().prop_map(Wall)
}

fn sha() -> impl Strategy<Value = Sha256> {
    any::<[u8; 32]>().prop_map(Sha256)
}

fn task() -> impl Strategy<Value = TaskId> {
    text().prop_map(|t| task_id(&t))
}

fn wire() -> impl Strategy<Value = WireId> {
    (task(), 1..9_u32).prop_map(|(t, n)| WireId::of_attempt(&t, n))
}

fn device() -> impl Strategy<Value = DeviceId> {
    text().prop_map(|t| DeviceId::new(&t).expect("legal"))
}

fn key_text() -> impl Strategy<Value = ObjectKey> {
    "[a-z0-9]{1,6}(/[a-zé0-9 .]{3,8}x){0,3}".prop_map(|t| object_key(&t))
}

fn maybe<S: Strategy>(inner: S) -> impl Strategy<Value = Option<S::Value>>
where
    S::Value: Clone,
{
    proptest::option::of(inner)
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Offline),
        any::<Option<u64>>().prop_map(|retry_after_ms| Fault::Throttled { retry_after_ms }),
        any::<u16>().prop_map(|status| Fault::Unavailable { status }),
        Just(Fault::Auth),
        Just(Fault::ClockSkew),
        Just(Fault::NoDestination),
        Just(Fault::Vanished(What::Upload)),
        Just(Fault::Damaged(What::Source)),
        text().prop_map(Fault::Rejected),
        text().prop_map(Fault::Local),
    ]
}

fn sidecar_source() -> impl Strategy<Value = SidecarSource> {
    (key_text(), any::<u64>(), sha()).prop_map(|(key, len, sha256)| SidecarSource { key, len, sha256 })
}

fn any_source() -> impl Strategy<Value = Source> {
    (key_text(), any::<u64>(), sha(), maybe(sidecar_source()))
        .prop_map(|(key, len, sha256, sidecar)| Source { key, len, sha256, sidecar })
}

fn any_fence() -> impl Strategy<Value = Fence> {
    (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(job, attempt, boot)| Fence {
        job: JobId(job),
        attempt,
        boot: Boot(boot),
    })
}

fn any_facts() -> impl Strategy<Value = RecordingFacts> {
    (
        maybe(wall()),
        maybe(wall()),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        maybe(text()),
        maybe(text()),
        maybe(text()),
    )
        .prop_map(|(started_at, finished_at, duration_ms, messages, len, path, error, status)| {
            RecordingFacts { started_at, finished_at, duration_ms, messages, len, path, error, status }
        })
}

fn any_task() -> impl Strategy<Value = Row> {
    let ids = (task(), device(), any::<u32>(), wire(), 0..TaskState::ALL.len());
    let times = (wall(), maybe(wall()), maybe(wall()), maybe(wall()), wall());
    let rest = (maybe(text()), maybe(text()), any::<bool>(), maybe(sha()), maybe(any_facts()));
    let attempts =
        (maybe(proptest::collection::vec(any_attempt(), 1..3)), maybe(wall()), maybe(any::<u64>()));
    (ids, times, rest, attempts).prop_map(|(ids, times, rest, attempts)| {
        Row::Task(TaskRow {
            id: ids.0,
            device: ids.1,
            attempt: ids.2,
            wire: ids.3,
            state: TaskState::ALL[ids.4],
            config: rest.0,
            created_at: times.0,
            ready_at: times.1,
            started_at: times.2,
            completed_at: times.3,
            error: rest.1,
            begun: rest.2,
            token_sha256: rest.3,
            recording: rest.4,
            updated_at: times.4,
            earlier: attempts.0,
            uploading_at: attempts.1,
            episode: attempts.2.map(EpisodeId),
        })
    })
}

fn any_attempt() -> impl Strategy<Value = EarlierAttempt> {
    (any::<u32>(), maybe(wall()), maybe(wall()), wall(), any::<bool>(), any::<u8>(), maybe(sha())).prop_map(
        |(attempt, ready_at, started_at, left_at, owed, asked, token_sha256)| EarlierAttempt {
            attempt,
            ready_at,
            started_at,
            left_at,
            owed,
            asked,
            token_sha256,
        },
    )
}

fn any_mark() -> impl Strategy<Value = SyncMark> {
    prop_oneof![
        Just(SyncMark::NotStarted),
        any::<u64>().prop_map(|n| SyncMark::Queued(JobId(n))),
        (any::<u64>(), key_text(), wall()).prop_map(|(n, key, at)| SyncMark::Synced {
            job: JobId(n),
            key,
            at
        }),
        any::<u64>().prop_map(|n| SyncMark::Failed(JobId(n))),
    ]
}

fn any_flaw() -> impl Strategy<Value = Flaw> {
    (0..Flaw::ALL.len()).prop_map(|n| Flaw::ALL[n])
}

fn any_inspection() -> impl Strategy<Value = Inspection> {
    let doubt = prop_oneof![
        any_flaw().prop_map(Doubt::Flaw),
        Just(Doubt::NoMessages),
        Just(Doubt::MessageCountDiffers),
        Just(Doubt::CopyDiffers),
        Just(Doubt::CopyGone),
    ];
    let times = (any::<Option<u64>>(), any::<Option<u64>>());
    let facts = (maybe(any_flaw()), any::<u64>(), times, any::<u32>(), any::<u64>()).prop_map(
        |(flaw, messages, (first_ns, last_ns), channels, chunks)| McapFacts {
            flaw,
            messages,
            first_ns,
            last_ns,
            channels,
            chunks,
        },
    );
    (wall(), maybe(doubt), maybe(facts)).prop_map(|(at, doubt, facts)| Inspection { at, doubt, facts })
}

fn any_episode() -> impl Strategy<Value = Row> {
    let ids = (any::<u64>(), text(), device(), task(), wire(), key_text());
    let data = (maybe(sidecar_source()), any::<u64>(), sha(), any::<Option<u64>>(), any::<Option<u64>>());
    let times = (maybe(wall()), wall(), maybe(wall()), maybe(wall()));
    let marks = (0..Qa::ALL.len(), maybe(text()), any_mark(), any::<bool>(), maybe(text()));
    let last = (maybe(any_inspection()), any::<u32>());
    (ids, data, times, marks, last).prop_map(|(ids, data, times, marks, (inspection, tries))| {
        Row::Episode(EpisodeRow {
            id: EpisodeId(ids.0),
            public_id: ids.1,
            device: ids.2,
            task: ids.3,
            wire: ids.4,
            key: ids.5,
            sidecar: data.0,
            len: data.1,
            sha256: data.2,
            recorded_at: times.0,
            duration_ms: data.3,
            messages: data.4,
            ingested_at: times.1,
            qa: Qa::ALL[marks.0],
            qa_reason: marks.1,
            qa_at: times.2,
            sync: marks.2,
            late: marks.3,
            removed_at: times.3,
            recorder_version: marks.4,
            inspection,
            tries,
        })
    })
}

fn any_job_state() -> impl Strategy<Value = JobState> {
    let cause = prop_oneof![
        Just(Cause::Queued),
        fault().prop_map(Cause::Retry),
        fault().prop_map(Cause::Destination),
        fault().prop_map(Cause::Disk),
        Just(Cause::Asked),
        Just(Cause::Returned),
        Just(Cause::Policy),
    ];
    let park = prop_oneof![
        Just(ParkWhy::NoDestination),
        fault().prop_map(ParkWhy::Fault),
        Just(ParkWhy::Policy),
        text().prop_map(ParkWhy::Quarantined)
    ];
    let last = prop_oneof![
        fault().prop_map(FinalWhy::Exhausted),
        fault().prop_map(FinalWhy::GivenUp),
        Just(FinalWhy::Foreign),
        Just(FinalWhy::Cancelled),
        fault().prop_map(FinalWhy::SourceLost),
    ];
    prop_oneof![
        (wall(), cause).prop_map(|(due, cause)| JobState::Pending { due, cause }),
        (any_fence(), wall()).prop_map(|(fence, since)| JobState::Claimed { fence, since }),
        (park, wall()).prop_map(|(why, since)| JobState::Parked { why, since }),
        wall().prop_map(|at| JobState::Completed { at }),
        (last, wall()).prop_map(|(why, at)| JobState::Failed { why, at }),
    ]
}

fn any_job() -> impl Strategy<Value = Row> {
    let ids = (any::<u64>(), any::<u64>(), device(), any_source(), key_text());
    let counts = (any_job_state(), any::<u32>(), any::<u32>(), any::<u64>());
    let times = (wall(), wall(), maybe(wall()), maybe(wall()));
    let rest = (maybe(fault()), maybe(any::<[u8; 32]>().prop_map(PolicySetId)), maybe(text()));
    let last = (maybe((text(), any::<u64>())), any::<Option<u64>>());
    (ids, counts, times, rest, last).prop_map(|(ids, counts, times, rest, last)| {
        Row::Job(JobRow {
            id: JobId(ids.0),
            episode: EpisodeId(ids.1),
            device: ids.2,
            state: counts.0,
            claims: counts.1,
            spent: counts.2,
            source: ids.3,
            key: ids.4,
            queued_at: times.0,
            approved_at: times.1,
            last_fault: rest.0,
            last_ended_at: times.2,
            ruled_by: rest.1,
            bytes_sent: counts.3,
            first_claimed_at: times.3,
            note: rest.2,
            memo: last.0.map(|(policy, value)| Memo { policy, value }),
            retry_delay_ms: last.1,
        })
    })
}

fn any_upload() -> impl Strategy<Value = Row> {
    let phase = prop_oneof![
        Just(Phase::Planned),
        text().prop_map(|t| Phase::Open { upload: UploadId::new(t) }),
        text().prop_map(|t| Phase::Sealing { upload: UploadId::new(t) }),
        text().prop_map(|t| Phase::Sealed { etag: ETag::new(&t) }),
        text().prop_map(|t| Phase::Abandoning { upload: Some(UploadId::new(t)) }),
    ];
    let plan = (any::<u64>(), any::<u16>()).prop_map(|(part_size, parts)| Plan { part_size, parts });
    let flags = (any::<bool>(), any::<u32>(), any::<bool>());
    (any_fence(), key_text(), any_source(), plan, phase, flags).prop_map(
        |(fence, key, source, plan, phase, (sidecar_stored, restarts, look_first))| {
            Row::Upload(UploadRow { fence, key, source, plan, phase, sidecar_stored, restarts, look_first })
        },
    )
}

fn any_row() -> impl Strategy<Value = Row> {
    prop_oneof![
        any::<(u64, u64, Option<u64>, Option<u64>)>().prop_map(
            |(next_episode, next_job, next_device, next_token)| {
                Row::Meta(MetaRow { next_episode, next_job, next_device, next_token })
            }
        ),
        roster::any_device(),
        roster::any_token(),
        any_task(),
        any_episode(),
        any_job(),
        any_upload(),
        (text(), sha(), any::<u64>()).prop_map(|(t, sha256, len)| Row::Part(PartFacts {
            etag: ETag::new(&t),
            sha256,
            len
        })),
        task().prop_map(|task| Row::Alias(AliasRow { task })),
        (task(), wire(), any::<(Option<u64>, Option<u64>)>(), proptest::option::of(sha())).prop_map(
            |(task, wire, (n, len), sha256)| {
                Row::Binding(BindingRow { task, wire, episode: n.map(EpisodeId), len, sha256 })
            }
        ),
        policy::any_policy(),
        policy::any_module(),
    ]
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::Meta),
        Just(Key::Policy),
        sha().prop_map(Key::Module),
        sha().prop_map(Key::Token),
        text().prop_map(|t| Key::Device(DeviceId::new(&t).expect("legal"))),
        task().prop_map(Key::Task),
        any::<u64>().prop_map(|n| Key::Episode(EpisodeId(n))),
        any::<u64>().prop_map(|n| Key::Job(JobId(n))),
        any::<u64>().prop_map(|n| Key::Upload(JobId(n))),
        (0..3_u64, any::<u16>()).prop_map(|(job, part)| Key::Part(JobId(job), PartNo(part))),
        wire().prop_map(Key::Alias),
        key_text().prop_map(Key::Binding),
    ]
}

fn two_keys_of_a_kind() -> impl Strategy<Value = (Key, Key)> {
    prop_oneof![
        (task(), task()).prop_map(|(a, b)| (Key::Task(a), Key::Task(b))),
        any::<(u64, u64)>().prop_map(|(a, b)| (Key::Episode(EpisodeId(a)), Key::Episode(EpisodeId(b)))),
        any::<(u64, u64)>().prop_map(|(a, b)| (Key::Job(JobId(a)), Key::Job(JobId(b)))),
        ((0..3_u64, any::<u16>()), (0..3_u64, any::<u16>())).prop_map(|((a, p), (b, q))| {
            (Key::Part(JobId(a), PartNo(p)), Key::Part(JobId(b), PartNo(q)))
        }),
        (wire(), wire()).prop_map(|(a, b)| (Key::Alias(a), Key::Alias(b))),
        (key_text(), key_text()).prop_map(|(a, b)| (Key::Binding(a), Key::Binding(b))),
        (sha(), sha()).prop_map(|(a, b)| (Key::Module(a), Key::Module(b))),
        (sha(), sha()).prop_map(|(a, b)| (Key::Token(a), Key::Token(b))),
    ]
}

proptest! {
    #[test]
    fn every_record_survives_the_disk(row in any_row()) {
        let bytes = row.to_bytes();
        prop_assert_eq!(Row::from_bytes(row.kind(), &bytes), Ok(row.clone()));
        let enveloped = minicbor::to_vec(&row).expect("writing to a vector cannot fail");
        prop_assert_eq!(minicbor::decode::<Row>(&enveloped).ok(), Some(row));
    }

    #[test]
    fn every_key_survives_the_disk(key in any_key()) {
        prop_assert_eq!(Key::from_bytes(key.kind(), &key.to_bytes()), Ok(key));
    }

    #[test]
    fn keys_of_a_kind_are_ordered_as_their_bytes((a, b) in two_keys_of_a_kind()) {
        prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
    }

    #[test]
    fn bytes_from_anywhere_never_panic(kind in 0..Kind::ALL.len(), bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let kind = Kind::ALL[kind];
        if let Ok(row) = Row::from_bytes(kind, &bytes) {
            prop_assert_eq!(row.kind(), kind);
        }
        if let Ok(key) = Key::from_bytes(kind, &bytes) {
            prop_assert_eq!(key.kind(), kind);
        }
    }
}
