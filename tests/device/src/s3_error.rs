//! Owns the ways in which a request to a store fails, and which of them are worth repeating.

use std::fmt;
use std::io;

use http::StatusCode;

use crate::http::HttpError;
use crate::xml;

/// Why a request to a store failed.
#[derive(Debug)]
pub enum S3Error {
    /// No answer.
    Http(HttpError),
    /// An answer that says no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The store's word for it; empty where the answer has no body.
        code: String,
        /// The store's explanation.
        message: String,
    },
    /// The local file failed.
    Disk(io::Error),
    /// An answer that makes no sense, or contents that differ from what was sent.
    Wrong(String),
}

impl S3Error {
    /// What a store's answer that is no success says.
    pub(crate) fn refused(status: StatusCode, body: &str) -> Self {
        Self::Refused {
            status: status.as_u16(),
            code: xml::text(body, "Code").unwrap_or_default(),
            message: xml::text(body, "Message").unwrap_or_default(),
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Http(_) | Self::Wrong(_) => true,
            Self::Disk(_) => false,
            Self::Refused { status, code, .. } => {
                matches!(*status, 408 | 429 | 500..) || matches!(code.as_str(), "RequestTimeout" | "SlowDown")
            }
        }
    }

    /// The category an uploader's row carries.
    pub(crate) fn category(&self) -> &'static str {
        match self {
            Self::Http(_) => "network",
            Self::Disk(_) => "local_file",
            Self::Wrong(_) => "verification",
            Self::Refused { .. } => "s3",
        }
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => write!(f, "{error}"),
            Self::Refused { status, code, message } => write!(f, "status {status} {code}: {message}"),
            Self::Disk(error) => write!(f, "local file: {error}"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for S3Error {}

impl From<HttpError> for S3Error {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}
