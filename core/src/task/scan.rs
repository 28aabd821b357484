//! Which approved episodes go to the cloud without anybody asking: which of them a policy is asked about, what it put
//! off, and for how long. Must not decide when an upload runs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Tasks, episode};
use crate::cx::Cx;
use crate::fact::Fact;
use crate::id::EpisodeId;
use crate::labels::labels_of;
use crate::limits;
use crate::policy::{Builtin, Candidate, Choice, Chosen, Clamped, Policies, Question, Seat, Situation, Slot};
use crate::row::EpisodeRow;
use crate::time::{Mono, Wall};
use crate::timers::TimerKey;

/// What scans remember of the episodes that a policy did not want yet. Volatile, and forgotten with the policy that said
/// so, whatever happens in other slots.
#[derive(Debug, Default)]
pub(super) struct Scans {
    by: Option<Seat>,
    put_off: BTreeMap<EpisodeId, PutOff>,
    /// Those that it wanted and found no room for.
    wanted: BTreeSet<EpisodeId>,
    round: Option<Round>,
}

/// An episode that a policy put off.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    /// Since when, without a break, in this process.
    since: Mono,
    /// For how long before that.
    before: Duration,
    /// It is not shown again before this.
    hidden_until: Option<Mono>,
}

/// Where an episode stands in line: the oldest approval first.
type Place = (Option<Wall>, EpisodeId);

/// A walk over more episodes than one question holds.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The last one that was shown.
    at: Place,
    /// The last one of this round: what was approved since then waits for the next, so that each round ends.
    end: Place,
}

fn place(row: &EpisodeRow) -> Place {
    (row.qa_at, row.id)
}

/// A verdict made safe.
struct Picked {
    /// One per candidate.
    choices: Vec<Choice>,
    /// The first that is to be queued and finds the batch full.
    full_at: Option<usize>,
}

impl Scans {
    /// No longer remembers an episode: it is another case now.
    pub(super) fn forget(&mut self, episode: EpisodeId) {
        self.put_off.remove(&episode);
        self.wanted.remove(&episode);
    }

    /// What is to be shown now, and the end of the round, if one question does not hold them all.
    fn window<'a>(&self, waiting: Vec<&'a EpisodeRow>, now: Mono) -> (Vec<&'a EpisodeRow>, Option<Place>) {
        let hidden = |row: &&EpisodeRow| {
            self.put_off
                .get(&row.id)
                .and_then(|put_off| put_off.hidden_until)
                .is_some_and(|until| until > now)
        };
        let open: Vec<&EpisodeRow> = waiting.into_iter().filter(|row| !hidden(row)).collect();
        if open.len() <= limits::CANDIDATES {
            return (open, None);
        }
        let last = open.last().map(|row| place(row));
        let ahead = |row: &&EpisodeRow| {
            self.round.is_some_and(|round| round.at < place(row) && place(row) <= round.end)
        };
        let (mut shown, rest): (Vec<&EpisodeRow>, Vec<&EpisodeRow>) = open.into_iter().partition(ahead);
        let goes_on = shown.len() >= limits::CANDIDATES;
        let end = self.round.filter(|_| goes_on).map(|round| round.end).or(last);
        shown.extend(rest);
        shown.truncate(limits::CANDIDATES);
        (shown, end)
    }

    /// Takes note of what was decided about those that were shown.
    fn note(&mut self, cx: &Cx<'_>, shown: &[&EpisodeRow], choices: &[Choice]) {
        let now = cx.now.mono;
        for (row, choice) in shown.iter().zip(choices) {
            let hidden_until = match choice {
                Choice::Enqueue => {
                    self.put_off.remove(&row.id);
                    self.wanted.insert(row.id);
                    continue;
                }
                Choice::Later => None,
                Choice::Skip => Some(now.after(limits::SKIP)),
            };
            let before = if self.wanted.remove(&row.id) { Duration::ZERO } else { waited_before(cx, row) };
            let first = PutOff { since: now, before, hidden_until };
            self.put_off.entry(row.id).or_insert(first).hidden_until = hidden_until;
        }
    }

    /// For how long an episode was put off.
    fn waited(&self, episode: EpisodeId, now: Mono) -> Duration {
        self.put_off
            .get(&episode)
            .map_or(Duration::ZERO, |put_off| put_off.before.saturating_add(put_off.since.until(now)))
    }
}

impl Tasks {
    /// It is time to ask which approved episodes go to the cloud without anybody asking for them.
    pub fn on_scan_due(&mut self, cx: &mut Cx<'_>) {
        if cx.stopping {
            return;
        }
        self.arm_scan(cx);
        let now = cx.now.mono;
        let mut scans = core::mem::take(&mut self.scans);
        let by = cx.active.seat(Slot::AutoScan);
        if scans.by.as_ref() != Some(by) {
            scans = Scans { by: Some(by.clone()), ..Scans::default() };
        }
        let waits = |id: &EpisodeId| self.episodes.get(id).is_some_and(episode::waits);
        scans.put_off.retain(|id, _| waits(id));
        scans.wanted.retain(waits);
        let (rows, end) = scans.window(self.waiting(), now);
        if rows.is_empty() {
            self.scans = scans;
            return;
        }
        let candidates: Vec<Candidate> = rows.iter().map(|row| candidate(cx, row)).collect();
        let situation = cx.asked(0);
        let stalled = is_stalled(cx, &scans, &rows, &situation, &candidates);
        let (asked, batch) = (candidates.len(), usize::try_from(cx.knobs.batch).unwrap_or(usize::MAX));
        let clamp = |answers| pick(answers, asked, batch);
        let question = Question::AutoScan(situation.clone(), candidates.clone());
        let (picked, _) = if stalled {
            cx.overrule(question, |policies| policies.select(&situation, &candidates), clamp)
        } else {
            cx.rule(question, |policies| policies.select(&situation, &candidates), clamp)
        };
        for (n, row) in rows.iter().enumerate() {
            if picked.full_at.is_none_or(|full| n < full) && picked.choices[n] == Choice::Enqueue {
                let wanted = episode::wanted(cx, row, None);
                cx.tell(Fact::EpisodeWanted(wanted.into()));
            }
        }
        scans.note(cx, &rows, &picked.choices);
        // Those that found the batch full come first next time.
        let done = picked.full_at.unwrap_or(rows.len());
        let at = done.checked_sub(1).map(|last| place(rows[last]));
        scans.round = at.zip(end).map(|(at, end)| Round { at, end });
        self.scans = scans;
    }

    pub(super) fn arm_scan(&self, cx: &mut Cx<'_>) {
        cx.arm(TimerKey::Scan, Duration::from_millis(cx.knobs.scan_every_ms));
    }
}

fn candidate(cx: &Cx<'_>, row: &EpisodeRow) -> Candidate {
    let age = row.qa_at.unwrap_or(cx.now.wall).until(cx.now.wall);
    Candidate {
        episode: row.id.0,
        device: String::from(row.device.as_str()),
        size: row.len,
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        tries: row.tries,
        labels: labels_of(&cx.knobs.labels, &row.device),
    }
}

/// For how long an episode that is put off for the first time in this process waited for the same policy before: as long
/// as it is approved and the policy is there, by the wall clock. A new process must be no new week, and a start leaves the
/// policy some time, because the site may have been off.
fn waited_before(cx: &Cx<'_>, row: &EpisodeRow) -> Duration {
    let chosen = cx.active.since[Slot::AutoScan as usize];
    let since = chosen.zip(row.qa_at).map(|(chosen, approved)| chosen.max(approved));
    let patience = cx.active.patience(Slot::AutoScan, cx.knobs);
    since
        .map_or(Duration::ZERO, |since| since.until(cx.now.wall))
        .min(patience.saturating_sub(limits::SCAN_START))
}

/// Whether the policy put off an episode for longer than it may that the built-in rules would have queued.
fn is_stalled(
    cx: &Cx<'_>,
    scans: &Scans,
    rows: &[&EpisodeRow],
    situation: &Situation,
    candidates: &[Candidate],
) -> bool {
    let patience = cx.active.patience(Slot::AutoScan, cx.knobs);
    let late = |row: &&EpisodeRow| scans.waited(row.id, cx.now.mono) >= patience;
    if !rows.iter().any(late) {
        return false;
    }
    let floor = Builtin::new(cx.knobs.builtin.clone()).select(situation, candidates).verdict;
    rows.iter().zip(floor).any(|(row, chosen)| late(row) && chosen.choice == Choice::Enqueue)
}

/// Makes a verdict safe: one answer per candidate, and at most a batch is queued. An answer that is missing is `Later`; one
/// too many answers nothing.
fn pick(answers: Vec<Chosen>, asked: usize, batch: usize) -> Clamped<Picked> {
    let reason = most_frequent(&answers);
    let fits = answers.len() == asked;
    let mut choices: Vec<Choice> = answers.into_iter().take(asked).map(|answer| answer.choice).collect();
    choices.resize(asked, Choice::Later);
    let wanted = choices.iter().enumerate().filter(|(_, choice)| **choice == Choice::Enqueue);
    let full_at = wanted.clone().nth(batch).map(|(n, _)| n);
    let queued = wanted.count().min(batch);
    let text = format!("enqueue {queued} of {asked}");
    Clamped { verdict: Picked { choices, full_at }, text, reason, clamped: !fits || full_at.is_some() }
}

/// The reason given most often, of equals the smallest.
fn most_frequent(answers: &[Chosen]) -> u16 {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.reason).or_default() += 1;
    }
    let best = counts.into_iter().max_by_key(|(reason, count)| (*count, core::cmp::Reverse(*reason)));
    best.map_or(0, |(reason, _)| reason)
}
