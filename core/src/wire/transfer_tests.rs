//! Tests of the uploader's messages, with frames captured from Axon.

use super::*;
use crate::id::{Boot, ConnId, WireId};
use crate::input::Input;
use std::vec;

const SHA: &str = "f3316f9823b44d9ae438b518feb378907fa81fd197a2e9d5750db7e89579a027";
const KEY: &str = "factory-site/d1/2026-11-21/a1.mcap";

fn read(frame: &str) -> TransferMessage {
    decode(frame.as_bytes()).expect("an object")
}

fn a1() -> Announced {
    Announced {
        task: "a1".into(),
        key: Some(KEY.into()),
        len: Some(2481),
        sha256: Sha256::from_hex(SHA),
        mcap_only: Some(false),
    }
}

#[test]
fn a_captured_greeting_tells_what_waits_for_its_acknowledgement() {
    let frame = r#"{"data":{"active_count":0,"bytes_per_sec":10950,"completed_count":0,"destination":{"bucket":"edge-axon","endpoint_url":"http://127.0.0.1:19000","region":"us-east-1"},"device_id":"d1","failed_count":0,"pending_bytes":0,"pending_count":0,"progress":{"active_bytes":0,"bytes_uploaded":2481,"completed_bytes":0,"current_bytes_per_sec":10950,"failed_bytes":0,"pending_bytes":0,"retry_wait_bytes":0,"tracked_bytes":2481,"waiting_ack_bytes":2481},"recovery":{"incomplete_count":0,"recovered_count":0,"recovered_from_state":false,"state_db_path":"/data/d1/transfer/state.db"},"retry_wait_count":0,"status_counts":{"active":0,"completed":0,"failed":0,"pending":0,"retry_wait":0,"uploaded_wait_ack":1},"uploading_count":0,"uploads":[{"checksum_sha256":"f3316f9823b44d9ae438b518feb378907fa81fd197a2e9d5750db7e89579a027","completed_at":null,"delete_last_error":"","delete_last_error_category":"","delete_next_retry_at":null,"delete_retry_count":0,"file_path":"/data/rec/a1.mcap","file_size_bytes":2481,"json_path":"/data/rec/a1.json","last_error":"","last_error_category":"","next_retry_at":null,"object_key":"factory-site/d1/2026-11-21/a1.mcap","retry_count":0,"s3_key":"factory-site/d1/2026-11-21/a1.mcap","status":"uploaded_wait_ack","task_id":"a1","updated_at":"2026-11-21T01:44:08Z","upload_mode":"mcap_json"}],"version":"0.1.0","waiting_ack_count":1,"waiting_ack_task_ids":["a1"]},"timestamp":"2026-11-21T01:44:10.626Z","type":"connected"}"#;
    let expected = Status {
        connected: true,
        version: Some("0.1.0".into()),
        waiting_ack: 1,
        bytes_per_sec: 10950,
        waiting_ack_tasks: Some(vec!["a1".into()]),
        uploads: Some(vec![UploadEntry { status: UploadStatus::WaitAck, announced: a1(), last_error: None }]),
        ..Status::default()
    };
    assert_eq!(read(frame), TransferMessage::Status(expected));
}

#[test]
fn a_captured_status_with_empty_lists_says_that_nothing_is_there() {
    let frame = r#"{"data":{"active_count":0,"bytes_per_sec":0,"completed_count":0,"destination":{"bucket":"edge-axon","endpoint_url":"http://127.0.0.1:15000","region":"us-east-1"},"failed_count":0,"pending_bytes":0,"pending_count":0,"progress":{"active_bytes":0,"bytes_uploaded":0,"completed_bytes":0,"current_bytes_per_sec":0,"failed_bytes":0,"pending_bytes":0,"retry_wait_bytes":0,"tracked_bytes":0,"waiting_ack_bytes":0},"recovery":{"incomplete_count":0,"recovered_count":0,"recovered_from_state":false,"state_db_path":"/data/robot/run/dev/dev-a/transfer/state.db"},"retry_wait_count":0,"status_counts":{"active":0,"completed":0,"failed":0,"pending":0,"retry_wait":0,"uploaded_wait_ack":0},"uploading_count":0,"uploads":[],"waiting_ack_count":0,"waiting_ack_task_ids":[]},"timestamp":"2026-11-21T01:39:05.686Z","type":"status"}"#;
    let expected = Status { uploads: Some(vec![]), waiting_ack_tasks: Some(vec![]), ..Status::default() };
    assert_eq!(read(frame), TransferMessage::Status(expected));
}

#[test]
fn captured_upload_messages_name_task_key_size_and_digest() {
    let started = r#"{"data":{"checksum_sha256":"f3316f9823b44d9ae438b518feb378907fa81fd197a2e9d5750db7e89579a027","file_size_bytes":2481,"files":["a1.mcap","a1.json"],"object_key":"factory-site/d1/2026-11-21/a1.mcap","s3_key":"factory-site/d1/2026-11-21/a1.mcap","status":"pending","task_id":"a1","total_bytes":2481,"upload_mode":"mcap_json"},"timestamp":"2026-11-21T01:44:07.854Z","type":"upload_started"}"#;
    assert_eq!(read(started), TransferMessage::UploadStarted(a1()));
    let complete = r#"{"data":{"bytes_uploaded":0,"checksum_sha256":"f3316f9823b44d9ae438b518feb378907fa81fd197a2e9d5750db7e89579a027","duration_ms":0,"file_size_bytes":2481,"object_key":"factory-site/d1/2026-11-21/a1.mcap","s3_key":"factory-site/d1/2026-11-21/a1.mcap","status":"uploaded_wait_ack","task_id":"a1","upload_mode":"mcap_json"},"timestamp":"2026-11-21T01:44:08.071Z","type":"upload_complete"}"#;
    assert_eq!(read(complete), TransferMessage::UploadComplete(a1()));
    let missing = r#"{"data":{"detail":"No MCAP file matching nope in /data/robot/run/dev/dev-a/rec","task_id":"nope"},"timestamp":"2026-11-21T01:39:05.939Z","type":"upload_not_found"}"#;
    let detail = Some("No MCAP file matching nope in /data/robot/run/dev/dev-a/rec".into());
    assert_eq!(read(missing), TransferMessage::UploadNotFound { task: "nope".into(), detail });
}

#[test]
fn failures_carry_their_reason_and_a_lone_mcap_says_so() {
    let failed =
        r#"{"type":"upload_failed","data":{"task_id":"a1","reason":"AccessDenied","retry_count":5}}"#;
    let reason = Some("AccessDenied".into());
    assert_eq!(read(failed), TransferMessage::UploadFailed { task: "a1".into(), reason });
    let lone = r#"{"type":"upload_complete","data":{"task_id":"a1","object_key":"k.mcap","upload_mode":"mcap_only"}}"#;
    let announced = Announced {
        task: "a1".into(),
        key: Some("k.mcap".into()),
        len: None,
        sha256: None,
        mcap_only: Some(true),
    };
    assert_eq!(read(lone), TransferMessage::UploadComplete(announced));
}

/// What an uploader says of one recording, as it was written while the mode was a plain yes or no.
#[derive(Encode)]
struct PlainAnnounced {
    #[n(0)]
    task: String,
    #[n(1)]
    key: Option<String>,
    #[n(2)]
    len: Option<u64>,
    #[n(3)]
    sha256: Option<Sha256>,
    #[n(4)]
    mcap_only: bool,
}

#[test]
fn a_journal_in_which_the_mode_was_a_plain_yes_or_no_is_still_read() {
    for mode in [true, false] {
        let announced = Announced { mcap_only: Some(mode), ..a1() };
        let Announced { task, key, len, sha256, .. } = announced.clone();
        let old =
            minicbor::to_vec(PlainAnnounced { task, key, len, sha256, mcap_only: mode }).expect("encodes");
        assert_eq!(minicbor::decode::<Announced>(&old).expect("as it was written"), announced);

        // As the input of a journal's entry: number and fields of `Input::Transfer`, then of the message in it.
        for (number, message) in [
            (1, TransferMessage::UploadStarted(announced.clone())),
            (2, TransferMessage::UploadComplete(announced.clone())),
        ] {
            let mut bytes = vec![0x82, 0x04, 0x82, 0x82, 0x01, 0x07, 0x82, number, 0x81];
            bytes.extend_from_slice(&old);
            let input = Input::Transfer { conn: ConnId { boot: Boot(1), n: 7 }, message };
            assert_eq!(minicbor::decode::<Input>(&bytes).expect("as it was written"), input);
        }
    }
    let silent = Announced { mcap_only: None, ..a1() };
    let bytes = minicbor::to_vec(&silent).expect("encodes");
    assert_eq!(minicbor::decode::<Announced>(&bytes).expect("just written"), silent);
}

#[test]
fn what_is_missing_or_of_the_wrong_type_counts_as_absent() {
    let other = |kind: &str| TransferMessage::Other(kind.into());
    assert_eq!(read("null"), other(""));
    assert_eq!(read(r#"{"type":7,"data":{}}"#), other(""));
    assert_eq!(read(r#"{"type":"status"}"#), other("status"));
    assert_eq!(read(r#"{"type":"status","data":[]}"#), other("status"));
    assert_eq!(read(r#"{"type":"upload_complete","data":{"task_id":" "}}"#), other("upload_complete"));
    assert_eq!(
        read(r#"{"type":"local_cleanup_failed","data":{"task_id":"a"}}"#),
        other("local_cleanup_failed")
    );
    let sloppy = r#"{"type":"status","data":{"pending_count":"3","active_count":2.9,"failed_count":-1,
        "completed_count":"x","pending_bytes":"9","bytes_per_sec":8,"version":"  ","uploads":{},
        "waiting_ack_task_ids":[" a ",1,"",null,"b"]}}"#;
    let expected = Status {
        pending: 3,
        active: 2,
        bytes_per_sec: 8,
        waiting_ack_tasks: Some(vec!["a".into(), "b".into()]),
        ..Status::default()
    };
    assert_eq!(read(sloppy), TransferMessage::Status(expected));
    for garbage in ["[1]", "1", "\"a\"", "{", "", "{\"type\":\"status\"} x"] {
        assert_eq!(decode(garbage.as_bytes()), Err(Unusable), "{garbage}");
    }
    assert_eq!(decode(&[0xff, 0x00]), Err(Unusable));
}

#[test]
fn completed_uploads_and_those_beyond_the_limit_are_counted_and_digested() {
    let entry =
        |n: usize, status: &str| std::format!(r#"{{"task_id":"t{n}","status":"{status}","last_error":"e"}}"#);
    let frame = |entries: &[std::string::String]| {
        std::format!(r#"{{"type":"status","data":{{"uploads":[{}]}}}}"#, entries.join(","))
    };
    let status = |entries: &[std::string::String]| match read(&frame(entries)) {
        TransferMessage::Status(status) => status,
        other => panic!("{other:?}"),
    };
    let few = [
        entry(1, "completed"),
        entry(2, "retry-wait"),
        entry(3, "retry_wait"),
        entry(4, "new word"),
        r#"{"status":"failed"}"#.into(),
        "7".into(),
    ];
    let seen = status(&few);
    let kept: std::vec::Vec<_> = seen.uploads.iter().flatten().map(|e| e.status).collect();
    assert_eq!(kept, [UploadStatus::RetryWait, UploadStatus::RetryWait, UploadStatus::Unknown]);
    let (count, digest) = seen.left_out.expect("one is completed");
    assert_eq!(count, 1);
    let other = status(&[entry(9, "completed")]).left_out.expect("one is completed");
    assert_ne!(digest, other.1, "the digest tells what was left out");

    let many: std::vec::Vec<_> = (0..limits::STATUS_UPLOADS + 3).map(|n| entry(n, "pending")).collect();
    let seen = status(&many);
    assert_eq!(seen.uploads.map(|kept| kept.len()), Some(limits::STATUS_UPLOADS));
    assert_eq!(seen.left_out.map(|(count, _)| count), Some(3));
}

#[test]
fn recordings_that_wait_beyond_the_limit_are_counted_and_digested_too() {
    let status = |ids: usize, uploads: &str| {
        let ids: std::vec::Vec<_> = (0..ids).map(|n| std::format!("\"t{n}\"")).collect();
        let frame = std::format!(
            r#"{{"type":"status","data":{{"waiting_ack_task_ids":[{}],"uploads":[{uploads}]}}}}"#,
            ids.join(",")
        );
        match read(&frame) {
            TransferMessage::Status(status) => status,
            other => panic!("{other:?}"),
        }
    };
    let full = status(limits::STATUS_UPLOADS, "");
    assert_eq!(
        (full.waiting_ack_tasks.map(|ids| ids.len()), full.left_out),
        (Some(limits::STATUS_UPLOADS), None)
    );
    let (two, three) = (status(limits::STATUS_UPLOADS + 2, ""), status(limits::STATUS_UPLOADS + 3, ""));
    assert_eq!(two.waiting_ack_tasks.map(|ids| ids.len()), Some(limits::STATUS_UPLOADS));
    assert_eq!(two.left_out.map(|(count, _)| count), Some(2));
    assert_ne!(two.left_out, three.left_out);
    let both = status(limits::STATUS_UPLOADS + 2, r#"{"task_id":"t","status":"completed"}"#);
    assert_eq!(both.left_out.map(|(count, _)| count), Some(3));
}

#[test]
fn frames_have_their_keys_in_alphabetical_order_and_end_a_line() {
    let task = WireId::new("T").expect("legal");
    let request = TransferFrame::UploadRequest { task: task.clone(), priority: 1 };
    assert_eq!(encode(&request), "{\"priority\":1,\"task_id\":\"T\",\"type\":\"upload_request\"}\n");
    let ack = TransferFrame::UploadAck { task };
    assert_eq!(encode(&ack), "{\"task_id\":\"T\",\"type\":\"upload_ack\"}\n");
    assert_eq!(encode(&TransferFrame::StatusQuery), "{\"type\":\"status_query\"}\n");
    assert_eq!(encode(&TransferFrame::UploadAll), "{\"type\":\"upload_all\"}\n");
    let cancel = TransferFrame::Cancel { task: WireId::new("T").unwrap() };
    assert_eq!(encode(&cancel), "{\"task_id\":\"T\",\"type\":\"cancel\"}\n");
}

#[test]
fn a_name_that_is_longer_than_it_can_be_counts_as_absent() {
    let (task, key) = ("t".repeat(limits::WIRE_BYTES), "k".repeat(limits::KEY_BYTES));
    let complete = |task: &str, s3: &str, object: &str| {
        read(&std::format!(
            r#"{{"type":"upload_complete","data":{{"task_id":"{task}","s3_key":"{s3}","object_key":"{object}"}}}}"#
        ))
    };
    let key_of = |message| match message {
        TransferMessage::UploadComplete(announced) => announced.key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key_of(complete(&task, &key, "k")).as_deref(), Some(key.as_str()), "the longest legal ones");
    assert_eq!(key_of(complete("a1", &std::format!("{key}k"), "k")).as_deref(), Some("k"));
    assert_eq!(key_of(complete("a1", &std::format!("{key}k"), &std::format!("{key}k"))), None);
    let long = std::format!("{task}t");
    assert_eq!(complete(&long, "k", "k"), TransferMessage::Other("upload_complete".into()));
    for kind in ["upload_started", "upload_failed", "upload_not_found"] {
        let frame = std::format!(r#"{{"type":"{kind}","data":{{"task_id":"{long}"}}}}"#);
        assert_eq!(read(&frame), TransferMessage::Other(kind.into()));
    }
    let many = vec![r#""w""#; limits::STATUS_UPLOADS + 5].join(",");
    let frame = std::format!(
        r#"{{"type":"status","data":{{"waiting_ack_task_ids":["{long}","{task}",{many}],
            "uploads":[{{"task_id":"{long}","status":"pending"}},{{"task_id":"{task}","status":"pending"}}]}}}}"#
    );
    let TransferMessage::Status(status) = read(&frame) else { panic!("a status") };
    let waiting = status.waiting_ack_tasks.expect("it said so");
    assert_eq!((waiting.len(), &waiting[0]), (limits::STATUS_UPLOADS, &task));
    let uploads = status.uploads.expect("it said so");
    assert_eq!(uploads.iter().map(|entry| &entry.announced.task).collect::<vec::Vec<_>>(), [&task]);
}
