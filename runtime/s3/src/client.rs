//! Owns the settings of the SDK: one attempt per call, our clock, our sockets, nothing random but what the seams
//! give. Sends nothing itself.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_runtime::invocation_id::DefaultInvocationIdGenerator;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Config, IdentityCache, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::TimeSource;
use tidegate_runtime::seam::{Blocking, Clock, Seams};
use tidegate_runtime::timeouts::Timeouts;

use crate::config::{CloudConfig, SetupError};
use crate::connect::{self, Dial, Http};
use crate::page::NoPages;

/// The slowest link that requests with a body are meant for. Slower ones end by the attempt's time; dead ones end
/// earlier, by their silence.
const SLOWEST_BYTES_PER_S: u64 = 16 << 10;

/// A client of the destination.
pub(crate) fn client<S: Seams>(
    seams: &S,
    config: &CloudConfig,
    timeouts: &Timeouts,
) -> Result<Client, SetupError> {
    let tls = if config.check()? { Some(connect::tls()?) } else { None };
    let http = Http::new(Dial {
        net: seams.net().clone(),
        tls,
        connect_timeout: config.connect_timeout,
        silence: config.attempt_timeout,
        timeouts: timeouts.clone(),
    });
    let credentials = Credentials::new(
        config.access_key.clone(),
        config.secret_key.clone(),
        config.session_token.clone(),
        None,
        "tidegate",
    );
    let mut seed = [0; 8];
    seams.blocking().entropy(&mut seed);
    let mut builder = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .credentials_provider(credentials)
        // The cache jitters, and there is nothing to refresh.
        .identity_cache(IdentityCache::no_cache())
        .force_path_style(config.path_style)
        .http_client(http)
        .interceptor(NoPages)
        .time_source(WallTime(seams.clock().clone()))
        // A store with a wrong clock must not move ours; one that finds ours wrong is reported.
        .disable_clock_skew_correction(true)
        .sleep_impl(TokioSleep::new())
        .invocation_id_generator(DefaultInvocationIdGenerator::with_seed(u64::from_le_bytes(seed)))
        // Whether and when to try again is for the core to decide.
        .retry_config(RetryConfig::disabled())
        .timeout_config(bounds(config.attempt_timeout, 0))
        // It measures by the wall clock, which steps, and sees a body in memory as sent at once. The silence limit
        // of the connection does its job.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // We name the checksums ourselves, and compute those of what we read.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    builder.set_endpoint_url(config.endpoint.clone());
    Ok(Client::from_conf(builder.build()))
}

/// Settings of one call with a body of `len` bytes: more time.
pub(crate) fn with_body(attempt_timeout: Duration, len: u64) -> Builder {
    Config::builder().timeout_config(bounds(attempt_timeout, len))
}

/// How long one attempt with a body of `len` bytes may take.
pub(crate) fn budget(attempt: Duration, len: u64) -> Duration {
    attempt.saturating_add(Duration::from_secs(len.div_ceil(SLOWEST_BYTES_PER_S)))
}

fn bounds(attempt: Duration, len: u64) -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(budget(attempt, len)).build()
}

/// The wall time of the seam.
struct WallTime<C>(C);

impl<C> fmt::Debug for WallTime<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl<C: Clock> TimeSource for WallTime<C> {
    fn now(&self) -> SystemTime {
        let since = u64::try_from(self.0.now().wall.0).unwrap_or(0);
        UNIX_EPOCH + Duration::from_millis(since)
    }
}
