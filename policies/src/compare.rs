//! Whether two verdicts on one question would have the site do something else. Memory, reasons and the time of the next
//! question do not count.

use std::cmp::Reverse;

use tidegate_core::policy::{Question, Verdict, Waiting};

/// Whether the site would act differently. Of order only the sequence counts, not the scores that make it.
#[must_use]
pub fn differ(question: &Question, one: &Verdict, other: &Verdict) -> bool {
    match (one, other) {
        (Verdict::AutoScan(one), Verdict::AutoScan(other)) => {
            !one.iter().map(|chosen| chosen.choice).eq(other.iter().map(|chosen| chosen.choice))
        }
        (Verdict::Retry(one), Verdict::Retry(other)) => one.action != other.action,
        (Verdict::Concurrency(one), Verdict::Concurrency(other)) => one.uploads != other.uploads,
        (Verdict::Bandwidth(one), Verdict::Bandwidth(other)) => {
            one.bytes_per_second != other.bytes_per_second
        }
        (Verdict::Order(one), Verdict::Order(other)) => match question {
            Question::Order(_, batch) => sequence(batch, &one.scores) != sequence(batch, &other.scores),
            Question::AutoScan(..)
            | Question::Retry(_)
            | Question::Concurrency(_)
            | Question::Bandwidth(_) => one != other,
        },
        (
            Verdict::AutoScan(_)
            | Verdict::Retry(_)
            | Verdict::Concurrency(_)
            | Verdict::Bandwidth(_)
            | Verdict::Order(_),
            _,
        ) => true,
    }
}

/// Jobs in the sequence of their scores: the highest first, ties by job.
fn sequence(batch: &[Waiting], scores: &[i64]) -> Vec<u64> {
    let mut ranked: Vec<_> =
        batch.iter().zip(scores).map(|(waiting, score)| (Reverse(*score), waiting.job)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, job)| job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::policy::{Ordering, RetryAction, RetryVerdict, Situation};

    #[test]
    fn only_what_the_site_would_do_counts() {
        let waiting = |job| Waiting {
            job,
            device: String::from("robot"),
            size: 1,
            spent: 0,
            queued_ms: 0,
            age_ms: 0,
            labels: Vec::new(),
        };
        let question = Question::Order(Situation::default(), vec![waiting(1), waiting(2), waiting(3)]);
        let order = |scores: [i64; 3]| Verdict::Order(Ordering { scores: scores.into(), reason: 0 });
        assert!(!differ(&question, &order([3, 2, 1]), &order([30, 5, i64::MIN])));
        assert!(!differ(&question, &order([5, 5, 5]), &order([3, 2, 1])), "ties go by job");
        assert!(differ(&question, &order([3, 2, 1]), &order([1, 2, 3])));

        let retry = |delay_ms, memo, reason| {
            Verdict::Retry(RetryVerdict { action: RetryAction::After { delay_ms }, memo, reason })
        };
        assert!(!differ(&question, &retry(5, 1, 1), &retry(5, 2, 2)));
        assert!(differ(&question, &retry(5, 1, 1), &retry(6, 1, 1)));
        assert!(differ(&question, &retry(5, 1, 1), &order([1, 1, 1])));
    }
}
