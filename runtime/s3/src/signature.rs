//! Owns what the signature of a body is made of: the digest that we computed already, so that no byte is read a second
//! time for it. Hashes nothing itself.

use aws_runtime::auth::PayloadSigningOverride;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use tidegate_core::digest::Sha256;

/// Signs the body of one request by its digest. Left alone, the SDK hashes every body in memory once more, on the thread
/// that serves the connections; a store that checks the signature's digest still finds a body that is not what it says.
#[derive(Debug)]
pub(crate) struct SignedBy(pub(crate) Sha256);

impl Intercept for SignedBy {
    fn name(&self) -> &'static str {
        "SignedBy"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        settings.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.to_string()));
        Ok(())
    }
}
