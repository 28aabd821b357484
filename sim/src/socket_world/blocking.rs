//! Blocking work of a simulated host: at once and inline, so that nothing depends on real threads.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_runtime::seam::Blocking;

/// Runs blocking work inline, and gives "threads" as local tasks.
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

    fn dedicate<T, F, M>(&self, _name: &'static str, make: M) -> impl Future<Output = T> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        let task = tokio::task::spawn_local(async move { make().await });
        async move {
            match task.await {
                Ok(value) => value,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The host was crashed: whoever waits goes with it.
                    Err(_cancelled) => std::future::pending().await,
                },
            }
        }
    }

    fn entropy(&self, buf: &mut [u8]) {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).fill(buf);
    }
}
