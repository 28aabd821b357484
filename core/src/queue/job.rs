//! Which change takes a job where: one total function, used in life and in replay. Decides nothing.

use crate::change::JobChange;
use crate::id::Fence;
use crate::refusal::Illegal;
use crate::row::{Cause, FinalWhy, JobRow, JobState, ParkWhy};

/// The job after a change; `row` is `None` if there is no such job yet. This is I17: nothing else is legal.
pub(super) fn after(row: Option<&JobRow>, change: &JobChange) -> Result<JobRow, Illegal> {
    match row {
        None => begin(change),
        Some(row) => go_on(row, change),
    }
}

/// A job that is over and is queued again, where a bug does that.
pub(super) fn revived(row: &JobRow, change: &JobChange) -> Result<JobRow, Illegal> {
    match change {
        JobChange::Returned { due, cause, .. } => {
            let state = JobState::Pending { due: *due, cause: cause.clone() };
            Ok(JobRow { state, ..row.clone() })
        }
        _ => Err(Illegal::job(Some(&row.state), "job.*")),
    }
}

fn begin(change: &JobChange) -> Result<JobRow, Illegal> {
    match change {
        JobChange::Queued(row) => match row.state {
            JobState::Pending { .. } | JobState::Parked { .. } => Ok((**row).clone()),
            JobState::Claimed { .. } | JobState::Completed { .. } | JobState::Failed { .. } => {
                Err(Illegal::job(Some(&row.state), "job.queued"))
            }
        },
        JobChange::Claimed { .. } => Err(Illegal::job(None, "job.claimed")),
        JobChange::Reclaimed { .. } => Err(Illegal::job(None, "job.reclaimed")),
        JobChange::Returned { .. } => Err(Illegal::job(None, "job.returned")),
        JobChange::Parked { .. } => Err(Illegal::job(None, "job.parked")),
        JobChange::Completed { .. } => Err(Illegal::job(None, "job.completed")),
        JobChange::Failed { .. } => Err(Illegal::job(None, "job.failed")),
        JobChange::Sent { .. } => Err(Illegal::job(None, "job.sent")),
        JobChange::Noted { .. } => Err(Illegal::job(None, "job.noted")),
    }
}

/// What a job is, as far as it decides what may happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Pending,
    Claimed(Fence),
    Parked,
    Final,
}

fn is(row: &JobRow) -> Is {
    match row.state {
        JobState::Pending { .. } => Is::Pending,
        JobState::Claimed { fence, .. } => Is::Claimed(fence),
        JobState::Parked { .. } => Is::Parked,
        JobState::Completed { .. } | JobState::Failed { .. } => Is::Final,
    }
}

fn go_on(row: &JobRow, change: &JobChange) -> Result<JobRow, Illegal> {
    let is = is(row);
    let claimed = matches!(is, Is::Claimed(_));
    let refuse = |name| Err(Illegal::job(Some(&row.state), name));
    // An attempt is spent by a claim alone, and at most one.
    let counts = |spent: u32| spent == row.spent || (claimed && spent == row.spent + 1);
    let mut next = row.clone();
    match change {
        JobChange::Queued(_) => return refuse("job.queued"),
        JobChange::Claimed { fence, at, ruled_by } => {
            let fits = fence.job == row.id && fence.attempt == row.claims + 1;
            if is != Is::Pending || !fits {
                return refuse("job.claimed");
            }
            next.state = JobState::Claimed { fence: *fence, since: *at };
            next.claims = fence.attempt;
            next.ruled_by = Some(*ruled_by);
            next.first_claimed_at = next.first_claimed_at.or(Some(*at));
        }
        JobChange::Reclaimed { fence, at } => {
            let newer = |held: Fence| {
                fence.job == held.job && fence.attempt == held.attempt && fence.boot > held.boot
            };
            if !matches!(is, Is::Claimed(held) if newer(held)) {
                return refuse("job.reclaimed");
            }
            next.state = JobState::Claimed { fence: *fence, since: *at };
        }
        JobChange::Returned { job: _, due, cause, spent, at, ruled_by, memo } => {
            if is == Is::Final || !counts(*spent) {
                return refuse("job.returned");
            }
            next.state = JobState::Pending { due: *due, cause: cause.clone() };
            next.spent = *spent;
            match cause {
                Cause::Retry(_) => {
                    next.memo.clone_from(memo);
                    let delay = at.until(*due).as_millis();
                    next.retry_delay_ms = Some(u64::try_from(delay).unwrap_or(u64::MAX));
                }
                // They cost nothing, and the next attempt is still the one that a policy let wait.
                Cause::Destination(_) | Cause::Disk(_) => {}
                Cause::Queued | Cause::Asked | Cause::Returned | Cause::Policy => next.retry_delay_ms = None,
            }
            let fault = match cause {
                Cause::Retry(fault) | Cause::Destination(fault) | Cause::Disk(fault) => Some(fault),
                Cause::Queued | Cause::Asked | Cause::Returned | Cause::Policy => None,
            };
            next.last_fault = fault.cloned().or(next.last_fault);
            next.ruled_by = ruled_by.or(next.ruled_by);
            next.last_ended_at = if claimed { Some(*at) } else { next.last_ended_at };
        }
        JobChange::Parked { job: _, why, spent, at, fault, ruled_by, memo } => {
            let stands = matches!(is, Is::Claimed(_) | Is::Pending);
            if !stands || !counts(*spent) {
                return refuse("job.parked");
            }
            next.state = JobState::Parked { why: why.clone(), since: *at };
            next.spent = *spent;
            if *why == ParkWhy::Policy {
                next.memo.clone_from(memo);
            }
            let named = match why {
                ParkWhy::Fault(fault) => Some(fault),
                ParkWhy::NoDestination | ParkWhy::Policy | ParkWhy::Quarantined(_) => fault.as_ref(),
            };
            next.last_fault = named.cloned().or(next.last_fault);
            next.ruled_by = ruled_by.or(next.ruled_by);
            next.last_ended_at = if claimed { Some(*at) } else { next.last_ended_at };
        }
        JobChange::Completed { fence, at } => {
            if is != Is::Claimed(*fence) {
                return refuse("job.completed");
            }
            next.state = JobState::Completed { at: *at };
            next.last_ended_at = Some(*at);
        }
        JobChange::Failed { job: _, why, spent, at, ruled_by } => {
            let may = match is {
                Is::Claimed(_) => *why != FinalWhy::Cancelled,
                Is::Pending | Is::Parked => *why == FinalWhy::Cancelled,
                Is::Final => false,
            };
            if !may || !counts(*spent) {
                return refuse("job.failed");
            }
            next.state = JobState::Failed { why: why.clone(), at: *at };
            next.spent = *spent;
            let fault = match why {
                FinalWhy::Exhausted(fault) | FinalWhy::GivenUp(fault) | FinalWhy::SourceLost(fault) => {
                    Some(fault)
                }
                FinalWhy::Foreign | FinalWhy::Cancelled => None,
            };
            next.last_fault = fault.cloned().or(next.last_fault);
            next.ruled_by = ruled_by.or(next.ruled_by);
            next.last_ended_at = if claimed { Some(*at) } else { next.last_ended_at };
        }
        JobChange::Sent { job: _, bytes } => {
            if !claimed {
                return refuse("job.sent");
            }
            next.bytes_sent = next.bytes_sent.saturating_add(*bytes);
        }
        JobChange::Noted { job: _, note } => {
            if is == Is::Final {
                return refuse("job.noted");
            }
            next.note = Some(note.clone());
        }
    }
    Ok(next)
}

/// Which job a change is about.
pub(crate) fn of(change: &JobChange) -> crate::id::JobId {
    match change {
        JobChange::Queued(row) => row.id,
        JobChange::Claimed { fence, .. }
        | JobChange::Reclaimed { fence, .. }
        | JobChange::Completed { fence, .. } => fence.job,
        JobChange::Returned { job, .. }
        | JobChange::Parked { job, .. }
        | JobChange::Failed { job, .. }
        | JobChange::Sent { job, .. }
        | JobChange::Noted { job, .. } => *job,
    }
}
