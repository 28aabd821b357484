//! The bank's entries: each planted bug, what is wrong with it, and which invariants should notice. Ids are never reused;
//! the bugs themselves are in the core (`tidegate_core::bug`) or in the world's driver.

use tidegate_core::bug::Bug;

use crate::run::DriverBug;

/// One planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bug in the core; `None` if it is elsewhere or comes later.
    pub bug: Option<Bug>,
    /// Its id.
    pub id: &'static str,
    /// What is wrong.
    pub sentence: &'static str,
    /// Invariants that may notice it first; the first one is the one it is there for.
    pub expects: &'static [&'static str],
    /// Where it is planted and how it is looked for.
    pub way: Way,
    /// For bugs the project had: the commit that mended it.
    pub fixed_in: Option<&'static str>,
    /// For bugs in parts that do not exist yet: what adds the part.
    pub later: Option<&'static str>,
}

/// Where a bug is planted and how it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the core; invariants look for it in ordinary runs.
    Core,
    /// In the world's driver; invariants look for it in ordinary runs.
    World(DriverBug),
    /// In the core; it is looked for by running each seed in two processes.
    Meta,
}

impl Entry {
    /// The same entry for a bug that the project had and mended in this commit.
    const fn mended(mut self, commit: &'static str) -> Entry {
        self.fixed_in = Some(commit);
        self
    }
}

/// The entry of an id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.id.eq_ignore_ascii_case(id))
}

const REPLICATION: &str = "replication (a later issue)";
const RESTORE: &str = "restore (a later issue)";

const fn core(bug: Bug, id: &'static str, expects: &'static [&'static str], sentence: &'static str) -> Entry {
    Entry { bug: Some(bug), id, sentence, expects, way: Way::Core, fixed_in: None, later: None }
}

const fn world(
    bug: DriverBug,
    id: &'static str,
    expects: &'static [&'static str],
    sentence: &'static str,
) -> Entry {
    Entry { bug: None, id, sentence, expects, way: Way::World(bug), fixed_in: None, later: None }
}

const fn meta(bug: Bug, id: &'static str, expects: &'static [&'static str], sentence: &'static str) -> Entry {
    Entry { bug: Some(bug), id, sentence, expects, way: Way::Meta, fixed_in: None, later: None }
}

const fn later(
    what: &'static str,
    id: &'static str,
    expects: &'static [&'static str],
    sentence: &'static str,
) -> Entry {
    Entry { bug: None, id, sentence, expects, way: Way::Core, fixed_in: None, later: Some(what) }
}

/// Every entry. B: patterns known from systems of this kind. X: further ones. H: bugs this core had.
pub static ALL: &[Entry] = &[
    // The close of an old generation is I02's own sentence.
    core(Bug::B01, "B01", &["I02", "I01"], "A lost link takes its device's newer link with it."),
    core(Bug::B02, "B02", &["I03"], "What a replaced link says still counts."),
    core(
        Bug::B03,
        "B03",
        &["L4", "I01"],
        "A newcomer is turned away while its device's old link counts as up.",
    ),
    core(Bug::B04, "B04", &["I05", "I04"], "An answer to get_state that names no state counts as confirmed."),
    core(Bug::B05, "B05", &["I06"], "config and begin are sent though the state is not confirmed."),
    core(
        Bug::B06,
        "B06",
        &["I08", "I09", "I06"],
        "A command that is not answered in time counts as failed, and is sent again under another request id.",
    ),
    core(
        Bug::B07,
        "B07",
        &["I07", "I04"],
        "An answer counts although its call has ended, or belongs to another link.",
    ),
    core(
        Bug::B08,
        "B08",
        // A call of a link that is gone is what I10 names.
        &["I10", "L2", "I07"],
        "Calls of a link that is lost or replaced are dropped, and nobody is told.",
    ),
    core(
        Bug::B09,
        "B09",
        &["I13", "I14", "I17"],
        "A sync request claims a claimed job once more, and the first claim's outcomes still count.",
    ),
    // Seen by the boot itself.
    core(Bug::B10, "B10", &["I15", "L1", "L3"], "Jobs claimed in an earlier boot are not taken up again."),
    core(Bug::B11, "B11", &["I14"], "An outcome counts for whatever has the same number in this boot."),
    later(REPLICATION, "B12", &["I14"], "A lease is compared with the wall clock."),
    later(REPLICATION, "B13", &["I14"], "A lease is renewed by a holder that has lost it."),
    core(
        Bug::B14,
        "B14",
        &["I18", "I13"],
        "A job is completed when Complete is sent, not when it is confirmed.",
    ),
    core(
        Bug::B15,
        "B15",
        &["I19", "I18", "I21", "I20"],
        "When the answer to Complete is lost, the recording is sent again under another key.",
    ),
    core(
        Bug::B16,
        "B16",
        // The false record of a part is seen when it is written, the object only when it is complete.
        &["I22", "I18"],
        "Parts that the store lists are believed without comparing them with anything.",
    ),
    core(Bug::B17, "B17", &["I21"], "The multipart upload of a job that gave up is never aborted."),
    core(Bug::B18, "B18", &["I22"], "Progress counts parts that are sent and not acknowledged."),
    // An operator's fault that ends a job is seen in the step that ends it.
    core(Bug::B19, "B19", &["I16", "L1"], "Refused credentials fail the job for good."),
    core(
        Bug::B20,
        "B20",
        &["I20"],
        "A recording is acknowledged as soon as its uploader says that it is there.",
    ),
    later(
        RESTORE,
        "B21",
        &["I23"],
        "A snapshot newer than the end of the log is believed, and nothing is replayed.",
    ),
    later(RESTORE, "B22", &["I23"], "A snapshot mixes two positions of the log."),
    later(RESTORE, "B23", &["I24"], "A replay causes effects outside again."),
    world(DriverBug::B24, "B24", &["I25"], "One step asks two versions: whatever is ready last answers."),
    core(Bug::B25, "B25", &["I26"], "A policy that cannot be loaded leaves none."),
    core(Bug::B26, "B26", &["I16", "I17"], "Attempts spent are forgotten at every boot."),
    world(DriverBug::B27, "B27", &["I12"], "Effects of a claim leave before the claim is durable."),
    world(DriverBug::B28, "B28", &["I12"], "After the disk refused a flush the site goes on from memory."),
    meta(Bug::B29, "B29", &["I28"], "The order of effects depends on addresses in memory."),
    // "Outstanding calls are at most so many" is I10's own sentence.
    core(Bug::B30, "B30", &["I10", "I27"], "Nothing bounds the calls that wait on one link."),
    core(Bug::X01, "X01", &["I04"], "A push confirms a state that was never answered for on this link."),
    core(
        Bug::X02,
        "X02",
        // The wire id is used again in the step that gives the task back, before any device hears of it.
        &["I11", "I09"],
        "A task that a device gave back keeps its wire id although that was begun.",
    ),
    core(Bug::X03, "X03", &["I11"], "A late finish callback brings a failed or cancelled task back."),
    core(Bug::X04, "X04", &["I11", "I06"], "A recorder that reports idle gives its running task back."),
    core(
        Bug::X05,
        "X05",
        &["I12", "I15"],
        "While the way is down a sync request is accepted and not recorded.",
    ),
    core(Bug::X06, "X06", &["I17", "I16"], "A job that used up its attempts is queued again by itself."),
    core(
        Bug::X07,
        "X07",
        &["I20"],
        "The edge copy is removed when the store completed the upload, before the job is.",
    ),
    core(Bug::X08, "X08", &["I29"], "Edge copies are removed when the wall clock says so."),
    core(Bug::X09, "X09", &["I29", "L1", "I16"], "A retry waits for the wall clock."),
    core(Bug::X10, "X10", &["L2"], "A get_state that failed is never asked again."),
    core(Bug::X11, "X11", &["I01", "L5", "I02"], "A takeover closes the newer link as well."),
    core(Bug::X12, "X12", &["I26", "I16", "L1"], "A delay is not clamped, whatever a policy asks for."),
    core(Bug::X13, "X13", &["L6", "L1"], "A policy that lets nothing begin is not asked again by itself."),
    core(Bug::X14, "X14", &["I27"], "Nothing bounds the parts in flight."),
    core(Bug::X15, "X15", &["I06"], "A command that changes the device is sent while another one is out."),
    core(Bug::X16, "X16", &["I05"], "A push whose clock lies before that of an earlier one counts."),
    core(
        Bug::X17,
        "X17",
        // The step that moves another's task is seen before anything of it is acknowledged.
        &["I11", "I20", "I06"],
        "A task's owner is not compared with the device that speaks of it.",
    ),
    core(Bug::X18, "X18", &["L1"], "A lost upload_request is never made again."),
    core(Bug::X19, "X19", &["L1"], "A look at a recording that ended without an answer is never repeated."),
    core(Bug::X20, "X20", &["I25"], "A retry does not say which policies decided it."),
    core(
        Bug::X21,
        "X21",
        &["I12", "I15"],
        "The record that counts jobs is not written with the job that it counts.",
    ),
    core(
        Bug::X22,
        "X22",
        &["I21"],
        "A Create whose answer was lost is asked again without looking for what it left.",
    ),
    core(Bug::X23, "X23", &["I19", "I18"], "Another's object at our key is overwritten."),
    core(Bug::X24, "X24", &["I15"], "The site approves by itself whatever its check found."),
    core(Bug::X25, "X25", &["L1"], "A check that nobody answered is never repeated."),
    // These three also show, with the real driver, that such an input is quarantined (runtime/src/driver/tests/quarantine.rs).
    core(Bug::X26, "X26", &["panic"], "A recorder's message of an unknown type makes the core panic."),
    core(
        Bug::X27,
        "X27",
        &["panic"],
        "The deadline of an upload that has no part to send makes the core panic.",
    ),
    core(Bug::X28, "X28", &["panic"], "An operation on our own store that fails makes the core panic."),
    // The record says one thing and memory another, wherever that shows first.
    core(Bug::X29, "X29", &["I26"], "A restart forgets which modules are barred."),
    core(
        Bug::X30,
        "X30",
        &["I26"],
        "An ejected module makes room for the default, though a good one is there.",
    ),
    core(Bug::X31, "X31", &["I26", "I24"], "A restart forgets the faults of modules."),
    core(Bug::X32, "X32", &["L6"], "A probation never ends."),
    core(Bug::X33, "X33", &["I26", "I25"], "A module that cannot be made ready is activated all the same."),
    core(Bug::X34, "X34", &["I26"], "Going back to an earlier set brings back modules that are barred."),
    core(Bug::X35, "X35", &["I25"], "A policy is given what another one noted."),
    core(
        Bug::X36,
        "X36",
        &["I26", "L6"],
        "A policy that let nothing begin for too long is overruled, and stays.",
    ),
    core(
        Bug::X37,
        "X37",
        &["I26"],
        "Answers that took too long count like any fault, whoever else was late.",
    ),
    core(Bug::X38, "X38", &["L6", "I26"], "What an ejection leaves is not made ready."),
    core(Bug::X39, "X39", &["L4"], "Takeovers are not counted."),
    core(Bug::X40, "X40", &["L4"], "The pause of a contest never ends."),
    core(Bug::X41, "X41", &["L4"], "A contested id is turned away although no link is up."),
    core(Bug::X42, "X42", &["I04", "L2"], "A greeting before a question that failed is forgotten."),
    core(Bug::X43, "X43", &["I05"], "A configuration that an unconfirmed link says it took counts."),
    core(Bug::X44, "X44", &["I30"], "A recorder whose link is lost loses its tasks at once."),
    core(Bug::X45, "X45", &["I30"], "An uploader whose link is lost takes the tasks of its device with it."),
    core(Bug::X46, "X46", &["L7"], "After a boot nobody waits for devices that do not come back."),
    core(Bug::X47, "X47", &["L7"], "An idle recorder leaves its tasks where they are."),
    // The record is not what its changes make of it, which is seen first.
    core(Bug::X48, "X48", &["I11", "I30", "L7"], "What is put back owes nothing."),
    core(Bug::X49, "X49", &["I31", "L7"], "The recording of an earlier attempt is not taken up again."),
    core(
        Bug::X50,
        "X50",
        &["I11", "I09"],
        "An earlier attempt is taken up again although the next one was begun.",
    ),
    core(Bug::X51, "X51", &["I09"], "A wire id is begun again after a refusal."),
    core(Bug::X52, "X52", &["L7"], "The end of a recording whose callback was lost is never looked for."),
    core(Bug::X53, "X53", &["I31", "L7"], "What a device holds against its records is not shown."),
    core(Bug::X54, "X54", &["I30", "I31"], "A conflict is settled without a look at what the caller saw."),
    // The one that waits may be of a task that is over.
    core(Bug::X55, "X55", &["L1", "L7"], "A recording that an uploader lists as waiting is not looked at."),
    // What is acknowledged is another one's, which is seen before anything of it is recorded.
    core(Bug::X56, "X56", &["I20", "I15"], "A key that belongs to another attempt is taken."),
    core(Bug::X57, "X57", &["I20"], "What was announced of a recording is not compared with what is stored."),
    core(
        Bug::X58,
        "X58",
        &["L7"],
        "An acknowledgement leaves only on the link on which the recording was announced.",
    ),
    core(Bug::X59, "X59", &["L7", "I11"], "Recordings of tasks that are over are ignored."),
    core(Bug::X60, "X60", &["L1"], "A greeting of an uploader that was garbage is never asked for again."),
    core(Bug::X61, "X61", &["L1"], "A recording that waits and whose key nobody said is forgotten."),
    core(Bug::X62, "X62", &["L1"], "upload_not_found ends the asking before the store was asked."),
    core(
        Bug::X63,
        "X63",
        &["L1", "L7"],
        "A request to an uploader whose answer never came is never repeated on the same link.",
    ),
    core(Bug::X66, "X66", &["I32"], "A knock without a fitting token is admitted where one is demanded."),
    core(Bug::X67, "X67", &["I32"], "The link of a token that was revoked stays."),
    core(
        Bug::H01,
        "H01",
        &["I06", "I09", "I11"],
        "A command that waited for a fresh state is sent without asking the tasks again.",
    )
    .mended("8c6e38b"),
    core(Bug::H02, "H02", &["I21"], "Any \"not there\" ends the duty to abort an upload.").mended("3d61764"),
    core(
        Bug::H03,
        "H03",
        // What it takes for gone it sends again: seen at once, while what is left behind is seen at the end.
        &["I22", "I21", "L1", "I18"],
        "Any \"not there\" answers any question about something being there.",
    )
    .mended("3d61764"),
    core(Bug::H04, "H04", &["I18"], "An upload is sealed without checking its source again.")
        .mended("2f16a1f"),
    core(
        Bug::H05,
        "H05",
        &["I16", "I25", "L1", "I15"],
        "A source that was once not as verified ends the job for good.",
    )
    .mended("2f16a1f"),
    core(Bug::H06, "H06", &["I21"], "Our own upload stays open beside an equal object of another writer.")
        .mended("2f16a1f"),
    core(Bug::H08, "H08", &["I18"], "Parts sent while the source was another one count later.")
        .mended("81eb002"),
    core(Bug::H09, "H09", &["I21"], "A store that once refuses to list makes the janitor forget.")
        .mended("dff7131"),
    core(
        Bug::H10,
        "H10",
        // What was taken back is now missing as evidence, and the recording waits for it for ever.
        &["L1", "I20", "I18"],
        "A later claim that says less takes back the digest that was announced.",
    )
    .mended("81eb002"),
    core(Bug::H11, "H11", &["I20"], "A recording of which nobody said anything is believed.")
        .mended("4d306bf"),
    core(Bug::H12, "H12", &["I20"], "Recordings at the edge are not frozen.").mended("e5cb598"),
    core(
        Bug::H13,
        "H13",
        &["I20"],
        "A recording is accepted without a last look at whether it was replaced.",
    )
    .mended("e5cb598"),
    core(Bug::H14, "H14", &["I20"], "A repeated claim is acknowledged without evidence.").mended("e5cb598"),
    core(
        Bug::H15,
        "H15",
        &["I22", "I21"],
        "Parts whose answer was lost are sent again though the store lists them.",
    )
    .mended("9e852d9"),
    core(
        Bug::H16,
        "H16",
        &["panic"],
        "The records of tasks that waiting commands name are not read before the step that may end them.",
    )
    .mended("08ca9e5"),
    core(Bug::H17, "H17", &["I27"], "A policy may put more parts in flight than there is memory for.")
        .mended("a54cbaa"),
    core(
        Bug::H18,
        "H18",
        &["L1"],
        "An upload whose completion does not say its mode counts as one with a sidecar.",
    )
    .mended("1358b4f"),
    core(Bug::H19, "H19", &["I11"], "An answer without a task is taken for the task that the caller named.")
        .mended("bf5797f"),
    core(Bug::H20, "H20", &["L1"], "What an uploader's list says of an upload under way is forgotten.")
        .mended("cb910e3"),
    core(
        Bug::H21,
        "H21",
        &["I29", "L1"],
        "After a restart a job waits as long as any job may, if the wall clock was set back.",
    )
    .mended("227c9fc"),
    core(
        Bug::H22,
        "H22",
        &["I18"],
        "The parts that were sent are not compared with those of the recording before an upload is sealed.",
    )
    .mended("46df9a6"),
];

#[cfg(test)]
mod tests {
    use super::{ALL, Way, find};
    use crate::report::sentences;
    use tidegate_core::bug::Bug;

    #[test]
    fn every_bug_of_the_core_has_one_entry_under_its_own_id() {
        for bug in Bug::ALL {
            let entries: Vec<_> = ALL.iter().filter(|entry| entry.bug == Some(*bug)).collect();
            assert_eq!(entries.len(), 1, "{bug:?}");
            assert_eq!(entries[0].id, bug.id());
            assert_eq!(entries[0].later, None);
        }
        assert!(ALL.is_sorted_by_key(|entry| (entry.id.starts_with('H'), entry.id)));
    }

    #[test]
    fn every_bug_of_the_known_patterns_is_listed_planted_or_not() {
        for n in 1..=30 {
            let entry = find(&format!("b{n:02}")).expect("listed");
            let planted = entry.bug.is_some() || matches!(entry.way, Way::World(_));
            assert_ne!(planted, entry.later.is_some(), "{}", entry.id);
        }
    }

    #[test]
    fn every_invariant_that_is_expected_exists_and_is_looked_at_by_now_if_the_bug_is_there() {
        for entry in ALL {
            assert!(!entry.expects.is_empty() && entry.sentence.ends_with('.'), "{}", entry.id);
            for id in entry.expects.iter().filter(|id| **id != sentences::PANIC) {
                let one = sentences::ALL.iter().find(|one| one.id == *id).expect("an invariant");
                assert!(one.later.is_none() || entry.later.is_some(), "{} expects {id}", entry.id);
            }
        }
    }
}
