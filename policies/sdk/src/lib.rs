//! What a policy in Rust is written with: the questions, one trait per hook, settings, and the macro that exports them.
//! Knows nothing of any policy. No standard library, no clock, no randomness.
//!
//! A policy is a type. [`Policy::configure`] makes it from its settings, and it implements the trait of each hook that it
//! serves; [`export!`] names them. Every decision gets a fresh instance of the module, so that nothing survives but what
//! a verdict carries as `memo`.
#![no_std]

pub extern crate alloc;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod rt;
mod settings;

pub use alloc::string::String;
pub use alloc::vec::Vec;

pub use bindings::exports::tidegate::policy::meta::Value;
pub use bindings::tidegate::policy::diag::Level;
pub use bindings::tidegate::policy::types::{Known, LinkKind, Power, Situation};
pub use settings::{Setting, Settings, digits, text};

/// Minutes of a day.
pub const DAY_MINUTES: u16 = 1440;
/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;
/// Milliseconds of an hour.
pub const HOUR_MS: u64 = 3_600_000;
/// Milliseconds of a minute.
pub const MINUTE_MS: u64 = 60_000;

/// Which approved episodes that nobody asked for are queued.
pub mod auto_scan {
    pub use crate::bindings::exports::tidegate::policy::auto_scan::{Action, Choice, Episode};
}

/// What follows a failed attempt.
pub mod retry {
    pub use crate::bindings::exports::tidegate::policy::retry::{
        Abandon, Action, Attempt, Decision, ErrorClass, Subject,
    };
}

/// How many uploads may run.
pub mod concurrency {
    pub use crate::bindings::exports::tidegate::policy::concurrency::Limits;
}

/// How fast all uploads together may go.
pub mod bandwidth {
    pub use crate::bindings::exports::tidegate::policy::bandwidth::Budget;
}

/// Which due job goes next.
pub mod order {
    pub use crate::bindings::exports::tidegate::policy::order::{Candidate, Ordering};
}

/// What a policy says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Lower-case letters, digits and hyphens; at most 64.
    pub name: &'static str,
    /// In the author's own words.
    pub version: &'static str,
    /// One line for operators.
    pub summary: &'static str,
    /// The words of the reasons: reason n of a verdict is the n-th, 0 is unspecified.
    pub reasons: &'static [&'static str],
    /// The settings, with their defaults.
    pub settings: &'static [Setting],
    /// The longest time for which the policy may let nothing begin on purpose, in milliseconds; 0 is the site's default
    /// of one hour. At most eight days.
    pub patience_ms: u64,
}

/// A policy: what it is called and how it is made.
pub trait Policy: Sized + 'static {
    /// What it says of itself.
    const ABOUT: About;

    /// Makes it from its settings. The site calls this once in every instance, before the decision. Settings are
    /// checked against [`About::settings`] before: only known keys with the type of their default come here.
    ///
    /// # Errors
    /// What is wrong with a setting, for the operator: the activation is refused with it.
    fn configure(settings: &Settings) -> Result<Self, String>;
}

/// Serves the hook auto-scan.
pub trait AutoScan: Policy {
    /// One choice per episode, in order.
    fn select(&self, now: &Situation, batch: Vec<auto_scan::Episode>) -> Vec<auto_scan::Choice>;
}

/// Serves the hook retry.
pub trait Retry: Policy {
    /// What follows this failed attempt.
    fn next(&self, attempt: retry::Attempt) -> retry::Decision;
}

/// Serves the hook concurrency.
pub trait Concurrency: Policy {
    /// How many uploads may run now.
    fn limits(&self, now: &Situation) -> concurrency::Limits;
}

/// Serves the hook bandwidth.
pub trait Bandwidth: Policy {
    /// How fast all uploads together may go now.
    fn budget(&self, now: &Situation) -> bandwidth::Budget;
}

/// Serves the hook order.
pub trait Order: Policy {
    /// One score per job, in order; the highest goes first.
    fn score(&self, now: &Situation, batch: Vec<order::Candidate>) -> order::Ordering;
}

/// Writes a line for the author: seen in `tidegate policy run` and in the site's log, at most 4 KiB per decision.
pub fn log(level: Level, message: &str) {
    bindings::tidegate::policy::diag::log(level, message);
}

/// The value of a label, if there is one.
#[must_use]
pub fn label<'a>(labels: &'a [(String, String)], key: &str) -> Option<&'a str> {
    labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// A number from a seed, evenly spread over 0..=most: the only randomness a policy has. Equal seeds give equal numbers.
#[must_use]
pub fn scatter(seed: u64, most: u64) -> u64 {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    match most.checked_add(1) {
        Some(numbers) => z % numbers,
        None => z,
    }
}

/// Exports a policy under the hooks it serves: `export!(NightWindow: concurrency, bandwidth);`
#[macro_export]
macro_rules! export {
    ($policy:ty: $($hook:ident),+ $(,)?) => {
        const _: () = {
            struct Guest;
            static SEAT: $crate::rt::Seat<$policy> = $crate::rt::Seat::new();
            impl $crate::bindings::exports::tidegate::policy::meta::Guest for Guest {
                fn describe() -> $crate::bindings::exports::tidegate::policy::meta::Info {
                    $crate::rt::describe::<$policy>()
                }
                fn configure(
                    given: $crate::Vec<$crate::bindings::exports::tidegate::policy::meta::Setting>,
                ) -> Result<(), $crate::String> {
                    SEAT.configure(given)
                }
            }
            $crate::__export_tidegate_policy_meta_0_1_0_cabi!(
                Guest with_types_in $crate::bindings::exports::tidegate::policy::meta
            );
            $($crate::__hook!($hook, $policy);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    (auto_scan, $policy:ty) => {
        impl $crate::bindings::exports::tidegate::policy::auto_scan::Guest for Guest {
            fn select(
                now: $crate::Situation,
                batch: $crate::Vec<$crate::auto_scan::Episode>,
            ) -> $crate::Vec<$crate::auto_scan::Choice> {
                SEAT.with(|policy| <$policy as $crate::AutoScan>::select(policy, &now, batch))
            }
        }
        $crate::__export_tidegate_policy_auto_scan_0_1_0_cabi!(
            Guest with_types_in $crate::bindings::exports::tidegate::policy::auto_scan
        );
    };
    (retry, $policy:ty) => {
        impl $crate::bindings::exports::tidegate::policy::retry::Guest for Guest {
            fn next(attempt: $crate::retry::Attempt) -> $crate::retry::Decision {
                SEAT.with(|policy| <$policy as $crate::Retry>::next(policy, attempt))
            }
        }
        $crate::__export_tidegate_policy_retry_0_1_0_cabi!(
            Guest with_types_in $crate::bindings::exports::tidegate::policy::retry
        );
    };
    (concurrency, $policy:ty) => {
        impl $crate::bindings::exports::tidegate::policy::concurrency::Guest for Guest {
            fn decide(now: $crate::Situation) -> $crate::concurrency::Limits {
                SEAT.with(|policy| <$policy as $crate::Concurrency>::limits(policy, &now))
            }
        }
        $crate::__export_tidegate_policy_concurrency_0_1_0_cabi!(
            Guest with_types_in $crate::bindings::exports::tidegate::policy::concurrency
        );
    };
    (bandwidth, $policy:ty) => {
        impl $crate::bindings::exports::tidegate::policy::bandwidth::Guest for Guest {
            fn decide(now: $crate::Situation) -> $crate::bandwidth::Budget {
                SEAT.with(|policy| <$policy as $crate::Bandwidth>::budget(policy, &now))
            }
        }
        $crate::__export_tidegate_policy_bandwidth_0_1_0_cabi!(
            Guest with_types_in $crate::bindings::exports::tidegate::policy::bandwidth
        );
    };
    (order, $policy:ty) => {
        impl $crate::bindings::exports::tidegate::policy::order::Guest for Guest {
            fn score(
                now: $crate::Situation,
                batch: $crate::Vec<$crate::order::Candidate>,
            ) -> $crate::order::Ordering {
                SEAT.with(|policy| <$policy as $crate::Order>::score(policy, &now, batch))
            }
        }
        $crate::__export_tidegate_policy_order_0_1_0_cabi!(
            Guest with_types_in $crate::bindings::exports::tidegate::policy::order
        );
    };
    ($other:ident, $policy:ty) => {
        compile_error!(concat!(
            "`",
            stringify!($other),
            "` is no hook: write auto_scan, retry, concurrency, bandwidth or order"
        ));
    };
}
