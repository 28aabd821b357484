//! Blocking work of a simulated host: at once and inline, so that nothing depends on real threads.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_runtime::seam::Blocking;

/// Runs blocking work inline; what would have a thread of its own runs in the task that asks for it.
#[derive(Clone, Debug)]
pub struct SimBlocking {
    entropy: Arc<Mutex<fastrand::Rng>>,
}

impl SimBlocking {
    /// With a seeded stream of entropy.
    #[must_use]
    pub fn new(seed: u64) -> SimBlocking {
        SimBlocking { entropy: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))) }
    }
}

impl Blocking for SimBlocking {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        work()
    }

    async fn dedicate<T, F, M>(&self, _name: &'static str, make: M) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        make().await
    }

    fn entropy(&self, buf: &mut [u8]) {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).fill(buf);
    }
}
