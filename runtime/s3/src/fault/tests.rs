//! The table, row by row.

use tidegate_core::digest::Sha256;
use tidegate_core::id::{ObjectKey, PartNo, UploadId};
use tidegate_core::object::{Span, Want};

use super::*;

fn verbs() -> Vec<Verb> {
    let sha256 = Sha256::of(b"");
    let upload = UploadId::new("u");
    let source = ObjectKey::new("s").unwrap();
    vec![
        Verb::Head,
        Verb::Get { span: None, want: Want::Digest },
        Verb::Put { source: source.clone(), len: 1, sha256 },
        Verb::Create { sha256 },
        Verb::PutPart { upload: upload.clone(), part: PartNo(1), source, span: Span { offset: 0, len: 1 } },
        Verb::Complete { upload: upload.clone(), parts: Vec::new() },
        Verb::Abort { upload: upload.clone() },
        Verb::ListParts { upload },
        Verb::ListUploads,
        Verb::Delete,
    ]
}

fn refused(status: u16, code: &str) -> Ending {
    let code = Some(code.to_owned()).filter(|code| !code.is_empty());
    Ending::Refused(No { status, code, ..No::default() })
}

/// The same for every operation.
fn all(ending: &Ending, expected: &Outcome<ObjectReply>) {
    for verb in verbs() {
        assert_eq!(outcome(&verb, ending.clone()), *expected, "{} {ending:?}", verb.name());
    }
}

/// By the name of the operation; `others` for those that are not named.
fn each(ending: &Ending, named: &[(&str, Outcome<ObjectReply>)], others: &Outcome<ObjectReply>) {
    for verb in verbs() {
        let found = named.iter().find(|(name, _)| *name == verb.name()).map(|(_, outcome)| outcome);
        assert_eq!(outcome(&verb, ending.clone()), *found.unwrap_or(others), "{} {ending:?}", verb.name());
    }
}

#[test]
fn what_was_not_sent_failed_and_what_was_lost_is_unknown() {
    all(&Ending::Unsent, &Outcome::Failed(Fault::Offline));
    all(&Ending::Lost, &Outcome::Unknown);
    all(&Ending::Unbuilt, &Outcome::Failed(Fault::Rejected("unbuilt request".to_owned())));
}

#[test]
fn a_store_that_asks_for_patience_throttles() {
    let asked = |status, code: Option<&str>| {
        let code = code.map(str::to_owned);
        Ending::Refused(No { status, code, retry_after_ms: Some(7000), skewed: false })
    };
    let throttled = Outcome::Failed(Fault::Throttled { retry_after_ms: Some(7000) });
    for ending in [
        asked(429, None),
        asked(503, Some("SlowDown")),
        asked(503, Some("RequestLimitExceeded")),
        asked(400, Some("ThrottlingException")),
        asked(200, Some("SlowDown")),
    ] {
        all(&ending, &throttled);
    }
}

#[test]
fn keys_and_clocks_are_told_apart() {
    for (status, code) in [
        (401, ""),
        (403, ""),
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
        (403, "SomethingNew"),
    ] {
        all(&refused(status, code), &Outcome::Failed(Fault::Auth));
    }
    all(&refused(403, "RequestTimeTooSkewed"), &Outcome::Failed(Fault::ClockSkew));
    let wordless = Ending::Refused(No { status: 403, skewed: true, ..No::default() });
    all(&wordless, &Outcome::Failed(Fault::ClockSkew));
    let denied = Ending::Refused(No {
        status: 403,
        code: Some("AccessDenied".to_owned()),
        skewed: true,
        ..No::default()
    });
    all(&denied, &Outcome::Failed(Fault::Auth));
}

#[test]
fn a_bucket_that_is_elsewhere_or_nowhere_is_no_destination() {
    for (status, code) in [
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (301, ""),
        (307, ""),
        (400, "AuthorizationHeaderMalformed"),
    ] {
        all(&refused(status, code), &Outcome::Failed(Fault::NoDestination));
    }
}

#[test]
fn what_is_missing_is_named_and_sometimes_is_the_answer() {
    let upload = Outcome::Failed(Fault::Vanished(What::Upload));
    let gone = [
        ("abort", Outcome::Done(ObjectReply::Aborted)),
        ("list_parts", Outcome::Done(ObjectReply::Parts(None))),
    ];
    each(&refused(404, "NoSuchUpload"), &gone, &upload);
    for code in ["NoSuchKey", ""] {
        let word = if code.is_empty() { "404" } else { code };
        let mut named = gone.to_vec();
        named.extend([
            ("head", Outcome::Done(ObjectReply::Head(None))),
            ("delete", Outcome::Done(ObjectReply::Deleted)),
            ("get", Outcome::Failed(Fault::Vanished(What::Object))),
            ("put_part", upload.clone()),
            ("complete", upload.clone()),
        ]);
        each(&refused(404, code), &named, &Outcome::Failed(Fault::Rejected(word.to_owned())));
    }
    all(&refused(400, "InvalidPart"), &Outcome::Failed(Fault::Vanished(What::Part)));
}

#[test]
fn a_digest_that_does_not_match_damages_what_was_sent() {
    for code in ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"] {
        let part = [("put_part", Outcome::Failed(Fault::Damaged(What::Part)))];
        each(&refused(400, code), &part, &Outcome::Failed(Fault::Damaged(What::Object)));
    }
}

#[test]
fn a_broken_store_may_have_created_or_completed_all_the_same() {
    for (status, code) in [(500, "InternalError"), (502, ""), (504, ""), (520, "")] {
        let named = [("create", Outcome::Unknown), ("complete", Outcome::Unknown)];
        each(&refused(status, code), &named, &Outcome::Failed(Fault::Unavailable { status }));
    }
    for (status, code) in
        [(503, "ServiceUnavailable"), (503, ""), (507, "InsufficientStorage"), (501, "NotImplemented")]
    {
        all(&refused(status, code), &Outcome::Failed(Fault::Unavailable { status }));
    }
}

#[test]
fn an_error_inside_a_200_counts_as_the_error_that_it_names() {
    let unavailable = Outcome::Failed(Fault::Unavailable { status: 500 });
    let named = [("create", Outcome::Unknown), ("complete", Outcome::Unknown)];
    each(&refused(200, "InternalError"), &named, &unavailable);
    all(&refused(200, "ServiceUnavailable"), &Outcome::Failed(Fault::Unavailable { status: 503 }));
    all(&refused(200, "SomethingNew"), &Outcome::Unknown);
}

#[test]
fn a_listing_that_cannot_be_read_is_refused_and_any_other_such_answer_leaves_it_open() {
    let unreadable = || Outcome::Failed(Fault::Rejected("unreadable answer".to_owned()));
    let named = [("list_parts", unreadable()), ("list_uploads", unreadable())];
    each(&refused(200, ""), &named, &Outcome::Unknown);
}

#[test]
fn a_page_in_the_stores_place_is_a_way_that_does_not_lead_there_and_never_an_answer() {
    let page = |status| Ending::Page(No { status, ..No::default() });
    for status in [200, 302, 307, 401, 403, 404, 407, 500, 502, 504] {
        let named = [("create", Outcome::Unknown), ("complete", Outcome::Unknown)];
        each(&page(status), &named, &Outcome::Failed(Fault::Unavailable { status }));
    }
    all(&page(429), &Outcome::Failed(Fault::Throttled { retry_after_ms: None }));
    all(&page(503), &Outcome::Failed(Fault::Unavailable { status: 503 }));
    // A gateway that does not let the request pass as it is.
    all(&page(413), &Outcome::Failed(Fault::Rejected("413".to_owned())));
}

#[test]
fn a_login_that_a_proxy_wants_is_the_way() {
    for status in [302, 303, 407] {
        all(&refused(status, ""), &Outcome::Failed(Fault::Unavailable { status }));
    }
}

#[test]
fn two_writers_at_once_are_no_fault_of_the_data() {
    for code in ["OperationAborted", "ConditionalRequestConflict"] {
        all(&refused(409, code), &Outcome::Failed(Fault::Unavailable { status: 409 }));
    }
    all(&refused(409, "BucketNotEmpty"), &Outcome::Failed(Fault::Rejected("BucketNotEmpty".to_owned())));
}

#[test]
fn an_expired_token_parks_also_where_the_answer_has_no_word_for_it() {
    let named = [("head", Outcome::Failed(Fault::Auth))];
    each(&refused(400, ""), &named, &Outcome::Failed(Fault::Rejected("400".to_owned())));
}

#[test]
fn bytes_that_did_not_get_through_are_the_way_and_not_the_data() {
    for (status, code) in [(400, "RequestTimeout"), (408, ""), (400, "IncompleteBody")] {
        all(&refused(status, code), &Outcome::Failed(Fault::Unavailable { status }));
    }
}

#[test]
fn any_other_refusal_keeps_the_word_of_the_store() {
    for (status, code, word) in [
        (400, "EntityTooSmall", "EntityTooSmall"),
        (412, "PreconditionFailed", "PreconditionFailed"),
        (405, "", "405"),
    ] {
        all(&refused(status, code), &Outcome::Failed(Fault::Rejected(word.to_owned())));
    }
}
