//! What must hold, in one sentence each: the invariants by id, safety first, then liveness. The only place in which an
//! id gets its words.

/// What one invariant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Its id, for instance `I11`.
    pub id: &'static str,
    /// What must hold, as one sentence.
    pub says: &'static str,
    /// What it waits for, if the part of the system that it is about does not exist yet.
    pub later: Option<&'static str>,
}

/// The sentence of an id; a general one for a crash and for a difference between two runs.
#[must_use]
pub fn sentence(id: &str) -> &'static str {
    ALL.iter().find(|one| one.id == id).map_or_else(
        || match id {
            PANIC => "Neither the core nor the world panics.",
            CANARY => "Nothing ever happens (false on purpose: a world that finds nothing must be noticed).",
            _ => "An invariant without a sentence; add it to the table of sentences.",
        },
        |one| one.says,
    )
}

/// The id under which a panic is reported.
pub const PANIC: &str = "panic";
/// The id of the invariant that is false on purpose.
pub const CANARY: &str = "canary";

const fn now(id: &'static str, says: &'static str) -> Sentence {
    Sentence { id, says, later: None }
}

const fn later(id: &'static str, says: &'static str, what: &'static str) -> Sentence {
    Sentence { id, says, later: Some(what) }
}

/// Every invariant, in the order of its id.
pub const ALL: &[Sentence] = &[
    now("I01", "A device has at most one current link for each role, and it is the newest one."),
    now(
        "I02",
        "Generations of links only grow, across restarts too, and the end of one touches no later one.",
    ),
    now("I03", "What a replaced link says changes no task, no job, no confidence and no call."),
    now(
        "I04",
        "A state is confirmed only by an answer to a get_state of the present link, or, if that failed, by a sound push \
         after it or by a greeting before it, which then does; a lost, replaced or restarted link takes the \
         confirmation with it.",
    ),
    now(
        "I05",
        "Empty, malformed and older snapshots raise no confidence and move no task; an idle recorder is idle, whatever \
         task it names.",
    ),
    now(
        "I06",
        "config and begin leave only towards a device whose state is confirmed and allows them; other commands need a \
         live link, the right owner and no other change under way.",
    ),
    now(
        "I07",
        "Each call ends exactly once, and an answer that comes after its end or on another link does nothing.",
    ),
    now(
        "I08",
        "A call whose answer never came is unknown, never failed; only what the device says later resolves it.",
    ),
    now("I09", "No device carries out two effective configurations for one attempt at a task."),
    now("I10", "Calls in flight are bounded, each has a deadline, and none belongs to a link that is gone."),
    now(
        "I11",
        "Tasks move only along the declared graph, for a recorded cause, and an ended one stays ended.",
    ),
    now(
        "I12",
        "What was acknowledged is in the durable image after any crash; what was not is there whole or not at all.",
    ),
    now("I13", "A job is claimed at most once at a time."),
    now("I14", "The outcome of an attempt that is over has no effect, and a completed job stays completed."),
    now(
        "I15",
        "An accepted recording always has a job that can still move, an object that verifies, or a failure that \
         somebody can see.",
    ),
    now(
        "I16",
        "Attempts are never forgotten, stay within their bound, and are as far apart as the retry rule says.",
    ),
    now("I17", "Jobs move only along the declared graph."),
    now(
        "I18",
        "A completed job has its object in the cloud: right key, size, parts, tag, and the content of the source.",
    ),
    now(
        "I19",
        "An upload takes effect at most once: after a lost answer it converges on the one object it made.",
    ),
    now(
        "I20",
        "A recording is taken in and acknowledged only as it was announced and stored, and its source is removed only \
         after the object was verified and the completion is durable.",
    ),
    now(
        "I21",
        "Every upload that was begun at the store is completed, aborted or on record to be cleaned up.",
    ),
    now(
        "I22",
        "Progress counts acknowledged parts, stays within the total, and falls only by an announced new start.",
    ),
    later("I23", "A state restored from a snapshot and the log equals the one replayed in full.", RESTORE),
    now(
        "I24",
        "A boot repeats nothing that cannot be repeated, and a life repeated from its inputs is the same life.",
    ),
    now(
        "I25",
        "Each decision comes from one author and from the one set of policies that was active when its step began, and \
         nothing of another goes into it; generations go forward one by one, each for a cause.",
    ),
    now(
        "I26",
        "Somebody always rules: what cannot be admitted, made ready or asked changes nothing, what fails too often is \
         ejected at once and stays barred, every verdict is bounded, and no link or job goes with it.",
    ),
    now("I27", "Everything that can grow stays below its bound."),
    now("I28", "Equal scenarios give equal runs."),
    now("I29", "No wait ends early and nothing is prolonged because a wall clock was set."),
    now(
        "I30",
        "A task is put back only when its device said that it does not hold it, stayed away for the whole grace, or a \
         person said so; what may have been recorded stays owed.",
    ),
    now("I31", "What a device holds against its records is shown as a conflict, and nothing else is."),
    now(
        "I32",
        "No program has a link without the proof that its listener demands, and a link goes with the token that proved it.",
    ),
    now(
        "L1",
        "What can be sent is sent, or failed for a cause that a retry would not cure, in bounded time.",
    ),
    now(
        "L2",
        "A connected and healthy device is confirmed in bounded time, and each call ends by its deadline.",
    ),
    now("L3", "After a restart, work that was under way is taken up again in bounded time."),
    now(
        "L4",
        "A silent device is noticed, and its place can be taken, in bounded time; programs that fight over an id take \
         turns with pauses between them, for as long as one of them has it.",
    ),
    now("L5", "Devices that come back at once all get in, with a bounded number of tries each."),
    now(
        "L6",
        "A valid policy that is asked for and ready rules from the next step on, whoever asks is answered, and one that \
         lets nothing begin is replaced when its time is up.",
    ),
    now(
        "L7",
        "In a healed world no record waits for a recording that its connected device ended, and every recording of a task \
         that a device holds arrives or stays for a cause that somebody can see.",
    ),
];

const RESTORE: &str = "restore (a later issue)";

#[cfg(test)]
mod tests {
    use super::{ALL, sentence};

    #[test]
    fn every_invariant_has_one_sentence_and_they_are_in_order() {
        let ids: Vec<&str> = ALL.iter().map(|one| one.id).collect();
        let wanted: Vec<String> =
            (1..=32).map(|n| format!("I{n:02}")).chain((1..=7).map(|n| format!("L{n}"))).collect();
        assert_eq!(ids, wanted);
        for one in ALL {
            assert!(one.says.ends_with('.') && !one.says.contains('\n'), "{}", one.id);
            assert_eq!(sentence(one.id), one.says);
        }
        assert!(sentence("I77").contains("without a sentence"));
    }
}
