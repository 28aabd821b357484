//! Owns the one table that turns what went wrong into the core's words. Sends nothing and retries nothing.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tidegate_core::object::{ObjectReply, Verb};
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_core::time::Wall;

use crate::connect::Unsent;
use crate::page::is_page;

/// How far clocks may differ before S3 refuses a signature: 15 minutes, in milliseconds.
const SKEW_MS: u64 = 15 * 60 * 1000;

/// How an attempt ended that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// There was no connection: surely nothing was sent.
    Unsent,
    /// We could not even build the request; surely nothing was sent.
    Unbuilt,
    /// Something was or may have been sent, and no answer came.
    Lost,
    /// As `Lost`: the attempt had no more time.
    TimedOut,
    /// The store said no.
    Refused(No),
    /// Somebody between us and the store answered in its place, with a page.
    Page(No),
}

/// The store's no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct No {
    /// HTTP status. 200 for an error that was noticed after the answer had begun.
    pub(crate) status: u16,
    /// The store's word for it; answers to `Head` have none.
    pub(crate) code: Option<String>,
    /// Milliseconds it asks us to wait.
    pub(crate) retry_after_ms: Option<u64>,
    /// Whether its clock and ours differ by more than signatures allow.
    pub(crate) skewed: bool,
}

/// Reads the SDK's error. `now` is our wall time.
pub(crate) fn ending<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, now: Wall) -> Ending {
    match error {
        SdkError::ConstructionFailure(_) => Ending::Unbuilt,
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().and_then(std::error::Error::source);
            if cause.is_some_and(|cause| cause.is::<Unsent>()) { Ending::Unsent } else { Ending::Lost }
        }
        SdkError::ResponseError(page) if is_page(page.raw()) => Ending::Page(no(page.raw(), None, now)),
        // An answer that broke off: its status counts if it is a refusal, its body never.
        SdkError::ResponseError(broken) if broken.raw().status().as_u16() >= 400 => {
            Ending::Refused(no(broken.raw(), None, now))
        }
        SdkError::ServiceError(refusal) => Ending::Refused(no(refusal.raw(), error.code(), now)),
        // A timeout is no failure; nor is what a later SDK may add.
        SdkError::TimeoutError(_) => Ending::TimedOut,
        SdkError::ResponseError(_) | _ => Ending::Lost,
    }
}

fn no(response: &HttpResponse, code: Option<&str>, now: Wall) -> No {
    let date = |name| {
        let text = response.headers().get(name)?;
        DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?.to_millis().ok()
    };
    let seconds = response.headers().get("retry-after").and_then(|text| text.trim().parse::<u64>().ok());
    let until = || date("retry-after").and_then(|at| u64::try_from(at.saturating_sub(now.0)).ok());
    No {
        status: response.status().as_u16(),
        code: code.filter(|code| !code.is_empty()).map(str::to_owned),
        retry_after_ms: seconds.map(|s| s.saturating_mul(1000)).or_else(until),
        skewed: date("date").is_some_and(|theirs| theirs.abs_diff(now.0) > SKEW_MS),
    }
}

/// What an attempt that did not succeed means to the core. Some refusals are what was asked for: an object that is
/// not there answers `Head`, and is deleted.
pub(crate) fn outcome(verb: &Verb, ending: Ending) -> Outcome<ObjectReply> {
    let no = match ending {
        Ending::Unsent => return Outcome::Failed(Fault::Offline),
        Ending::Unbuilt => return Outcome::Failed(Fault::Rejected("unbuilt request".to_owned())),
        Ending::Lost | Ending::TimedOut => return Outcome::Unknown,
        Ending::Page(no) => return by_page(verb, &no).map_or(Outcome::Unknown, Outcome::Failed),
        Ending::Refused(no) => no,
    };
    let fault = match no.code.as_deref() {
        Some(code) => by_code(verb, code, &no),
        None => None,
    };
    match fault.unwrap_or_else(|| by_status(verb, &no)) {
        Some(Fault::Vanished(What::Object)) if matches!(verb, Verb::Head) => {
            Outcome::Done(ObjectReply::Head(None))
        }
        Some(Fault::Vanished(What::Object)) if matches!(verb, Verb::Delete) => {
            Outcome::Done(ObjectReply::Deleted)
        }
        Some(Fault::Vanished(What::Upload)) if matches!(verb, Verb::Abort { .. }) => {
            Outcome::Done(ObjectReply::Aborted)
        }
        Some(Fault::Vanished(What::Upload)) if matches!(verb, Verb::ListParts { .. }) => {
            Outcome::Done(ObjectReply::Parts(None))
        }
        Some(fault) => Outcome::Failed(fault),
        None => Outcome::Unknown,
    }
}

/// By the store's word. Outer `None`: the word says nothing that the status does not; inner `None`: unknown.
fn by_code(verb: &Verb, code: &str, no: &No) -> Option<Option<Fault>> {
    let fault = match code {
        "SlowDown"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded" => Fault::Throttled { retry_after_ms: no.retry_after_ms },
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => Fault::ClockSkew,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "ExpiredToken"
        | "TokenRefreshRequired"
        | "SignatureDoesNotMatch"
        | "NotSignedUp" => Fault::Auth,
        // The last three: a bucket that lives in another region than the one we ask and sign for.
        "NoSuchBucket"
        | "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => Fault::NoDestination,
        "NoSuchUpload" => Fault::Vanished(What::Upload),
        "NoSuchKey" | "NotFound" => Fault::Vanished(missing(verb)?),
        "InvalidPart" => Fault::Vanished(What::Part),
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "InvalidRange" => {
            Fault::Damaged(damaged(verb))
        }
        // The bytes did not get through in time or in full: the way, not the data. Two writers at once: only time helps.
        "RequestTimeout"
        | "IncompleteBody"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "ConcurrentModification" => Fault::Unavailable { status: no.status },
        "InternalError" | "ServiceUnavailable" if no.status < 300 => {
            // An error in the body of a 200, where the status cannot speak.
            let status = if code == "InternalError" { 500 } else { 503 };
            return Some(by_status(verb, &No { status, ..no.clone() }));
        }
        _ => return None,
    };
    Some(Some(fault))
}

/// By the status alone; `None` is unknown.
fn by_status(verb: &Verb, no: &No) -> Option<Fault> {
    let rejected = || Fault::Rejected(no.code.clone().unwrap_or_else(|| no.status.to_string()));
    match no.status {
        // A whole answer that says nothing we can read. Listing changes nothing, so nothing happened; asking again
        // would be answered the same way.
        0..=299 if no.code.is_none() && matches!(verb, Verb::ListParts { .. } | Verb::ListUploads) => {
            Some(Fault::Rejected("unreadable answer".to_owned()))
        }
        // A refusal under a success, in a word we do not know: nobody can say what happened.
        0..=299 => None,
        // Without a word, which is how `Head` is refused, a wrong clock looks like a wrong key.
        401 | 403 if no.code.is_none() && no.skewed => Some(Fault::ClockSkew),
        401 | 403 => Some(Fault::Auth),
        // `Head` has nothing in it that could be wrong but the credentials: so an expired token looks there.
        400 if no.code.is_none() && matches!(verb, Verb::Head) => Some(Fault::Auth),
        404 => Some(missing(verb).map_or_else(rejected, Fault::Vanished)),
        // A proxy that wants a login, or sends us to one: no store does either.
        302 | 303 | 407 => Some(Fault::Unavailable { status: no.status }),
        408 => Some(Fault::Unavailable { status: no.status }),
        416 => Some(Fault::Damaged(What::Object)),
        429 => Some(Fault::Throttled { retry_after_ms: no.retry_after_ms }),
        301 | 307 | 308 => Some(Fault::NoDestination),
        300..=499 => Some(rejected()),
        // Said before anything was done.
        501 | 503 | 505 | 507 => Some(Fault::Unavailable { status: no.status }),
        _ => broken(verb, no.status),
    }
}

/// By a page that came in the store's place. What it says is said by somebody who knows nothing of our keys, our bucket
/// and our uploads; only that the request itself is too large or malformed for the way may be so. `None` is unknown.
fn by_page(verb: &Verb, no: &No) -> Option<Fault> {
    match no.status {
        0..=399 | 401 | 403 | 404 | 407 => broken(verb, no.status),
        _ => by_status(verb, no),
    }
}

/// The answer may have been lost behind the store's own door. `None` is unknown: doing these twice is not the same as
/// once.
fn broken(verb: &Verb, status: u16) -> Option<Fault> {
    match verb {
        Verb::Create { .. } | Verb::Complete { .. } => None,
        Verb::Head
        | Verb::Get { .. }
        | Verb::Put { .. }
        | Verb::PutPart { .. }
        | Verb::Abort { .. }
        | Verb::ListParts { .. }
        | Verb::ListUploads
        | Verb::Find { .. }
        | Verb::Delete => Some(Fault::Unavailable { status }),
    }
}

/// What "not found" says is missing. `None`: the operation needs nothing but the bucket.
fn missing(verb: &Verb) -> Option<What> {
    match verb {
        Verb::Head | Verb::Get { .. } | Verb::Delete => Some(What::Object),
        Verb::PutPart { .. } | Verb::Complete { .. } | Verb::Abort { .. } | Verb::ListParts { .. } => {
            Some(What::Upload)
        }
        Verb::Put { .. } | Verb::Create { .. } | Verb::ListUploads | Verb::Find { .. } => None,
    }
}

/// What a digest that does not match says is damaged.
fn damaged(verb: &Verb) -> What {
    match verb {
        Verb::PutPart { .. } => What::Part,
        Verb::Head
        | Verb::Get { .. }
        | Verb::Put { .. }
        | Verb::Create { .. }
        | Verb::Complete { .. }
        | Verb::Abort { .. }
        | Verb::ListParts { .. }
        | Verb::ListUploads
        | Verb::Find { .. }
        | Verb::Delete => What::Object,
    }
}

#[cfg(test)]
mod tests;
