//! Owns the question whether an answer is the store's own. On the way to it are gateways, proxies and networks that want
//! a login first, and they answer in its place: with a page for people. Says nothing of what follows from that.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Whether it is a page for people, and nothing in its head is a store's. Stores answer in XML; an object that is
/// itself a page comes with their headers.
pub(crate) fn is_page(answer: &HttpResponse) -> bool {
    let html = answer.headers().get("content-type").is_some_and(|kind| {
        kind.trim_start().get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
    });
    html && !answer.headers().iter().any(|(name, _)| name.starts_with("x-amz"))
}

/// Keeps pages from being read as answers. The SDK takes any 200 for a success of an operation whose success has no body.
#[derive(Debug)]
pub(crate) struct NoPages;

impl Intercept for NoPages {
    fn name(&self) -> &'static str {
        "NoPages"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if is_page(context.response()) { Err("a page in the store's place".into()) } else { Ok(()) }
    }
}
