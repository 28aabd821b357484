//! Owns the embedded S3 endpoint.
