//! `list`: named scenarios, faults, invariants, bugs and marks. Judges nothing.

use clap::Args;
use serde_json::json;
use tidegate_sim::bank::table;
use tidegate_sim::report::sentences;

use super::Desk;

const EXAMPLES: &str = "Examples:
  tidegate-sim list
  tidegate-sim list --json | jq '.bugs[].id'";

/// Arguments of `list`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct List {
    /// One JSON object instead of words
    #[arg(long)]
    pub json: bool,
}

/// A fault of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Its id.
    pub id: &'static str,
    /// The word for it in files, logs and coverage.
    pub word: &'static str,
    /// What happens.
    pub says: &'static str,
}

const fn fault(id: &'static str, word: &'static str, says: &'static str) -> Listed {
    Listed { id, word, says }
}

/// Every fault, in the order of its id.
pub const FAULTS: &[Listed] = &[
    fault("F01", "slow", "messages take longer"),
    fault("F02", "hold", "nothing passes for a while; all of it passes later, in order"),
    fault("F03", "cut", "what is sent is gone, in both directions"),
    fault("F04", "cut", "what is sent is gone, in one direction"),
    fault("F05", "power-off", "a device loses power without a word"),
    fault("F06", "reset", "open connections are reset"),
    fault("F07", "refuse", "new connections are refused"),
    fault("F08", "replay", "late messages of a device arrive again, out of order"),
    fault("F11", "kill", "a site's process is killed and started again"),
    fault("F12", "power-loss", "a site loses power; its links end without a word"),
    fault("F14", "pause", "a site's process stands still with its sockets open"),
    fault("F15", "step", "a site's wall clock is set"),
    fault("F15", "drift", "a site's wall clock runs fast or slow"),
    fault("F16", "disk-fails", "the disk refuses a flush; the process ends and is started again"),
    fault("F16", "disk-slow", "flushes take longer"),
    fault("F18", "throttle", "a store asks to slow down"),
    fault("F18", "broken", "a store is broken inside"),
    fault("F18", "expired", "a store refuses the credentials"),
    fault("F18", "skewed", "a store finds our clock wrong"),
    fault("F18", "misrouted", "something else answers in a store's name"),
    fault("F19", "lose-answers", "a store does what is asked and the answer is lost"),
    fault("F19", "lose-requests", "requests are lost on the way and nobody knows"),
    fault("F19", "lose-callbacks", "callbacks of a device never arrive"),
    fault("F20", "outage", "nobody answers at a store's address"),
    fault("F20", "lifecycle", "a store drops all unfinished uploads"),
    fault("F20", "overwrite", "a third party overwrites what a task left in a store"),
    fault("F20", "delete", "a third party deletes what a task left in a store"),
    fault("F20", "copy", "a third party brings a recording to where it belongs"),
    fault("F21", "crash", "a program of a device dies and is started again"),
    fault("F21", "twin", "a second program with the same id connects again and again"),
    fault("F21", "sulk", "a program answers pings and is of no use"),
    fault("F22", "lie", "a device says something that is not so"),
    fault("F24", "install", "somebody brings a module and puts it under a hook"),
    fault("F24", "swap-storm", "two modules are swapped again and again"),
    fault("F24", "rot", "the bytes of a module rot on the disk"),
    fault("F24", "host-slow", "the host of the policies is late, or never says what became of it"),
    fault("F24", "surroundings", "a site reaches its cloud in another way"),
    fault("F24", "refused", "a module is refused at admission"),
    fault("F24", "huge", "a module is too large"),
    fault("F24", "unfit", "a module does not take its configuration"),
    fault("F24", "trap", "a module traps at every question"),
    fault("F24", "flaky", "a module traps now and then"),
    fault("F24", "loop", "a module runs until its fuel is used up"),
    fault("F24", "bomb", "a module allocates until its memory is used up"),
    fault("F24", "garbled", "a module answers in the wrong shape"),
    fault("F24", "late", "a module takes too long by the clock"),
    fault("F24", "idle", "a module lets nothing begin"),
    fault("F24", "hesitant", "a module lets nothing begin, most of the time"),
    fault("F24", "greedy", "a module asks for as much as can be asked for"),
    fault("F24", "absurd", "a module asks for nothing that could be obeyed"),
    fault("F24", "memo", "a module notes something else every time"),
    fault("F24", "whim", "a module tries to be random"),
];

/// Carries it out.
///
/// # Errors
/// If nothing can be written, or a named scenario cannot be read.
pub fn list(args: &List, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let mut scenarios = Vec::new();
    for (name, text) in desk.lab.named {
        let scenario = (desk.lab.parse)(text).map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
        scenarios.push((*name, scenario.about.trim().to_string()));
    }
    let marks = desk.lab.marks;
    if args.json {
        let value = json!({
            "type": "list",
            "scenarios": scenarios.iter().map(|(name, about)| json!({"name": name, "about": about})).collect::<Vec<_>>(),
            "faults": FAULTS.iter().map(|f| json!({"id": f.id, "word": f.word, "says": f.says})).collect::<Vec<_>>(),
            "invariants": sentences::ALL
                .iter()
                .map(|one| json!({"id": one.id, "says": one.says, "later": one.later}))
                .collect::<Vec<_>>(),
            "bugs": table::ALL
                .iter()
                .map(|e| json!({"id": e.id, "says": e.sentence, "expects": e.expects, "later": e.later, "fixed_in": e.fixed_in}))
                .collect::<Vec<_>>(),
            "marks": marks.iter().map(|(id, says)| json!({"id": id, "says": says})).collect::<Vec<_>>(),
        });
        desk.json(&value)?;
        return Ok(0);
    }
    writeln!(desk.out, "Named scenarios (run NAME)")?;
    for (name, about) in &scenarios {
        // Its first sentence; the file has the rest.
        let whole = about.replace('\n', " ");
        let first = whole.split_inclusive(['.', ';']).next().unwrap_or_default();
        writeln!(desk.out, "  {name:<20} {}", first.trim_end_matches(';'))?;
    }
    writeln!(desk.out, "\nFaults")?;
    for one in FAULTS {
        writeln!(desk.out, "  {} {:<16} {}", one.id, one.word, one.says)?;
    }
    writeln!(desk.out, "\nInvariants and liveness")?;
    for one in sentences::ALL {
        let later = one.later.map(|what| format!(" [with {what}]")).unwrap_or_default();
        writeln!(desk.out, "  {:<4} {}{later}", one.id, one.says)?;
    }
    writeln!(desk.out, "\nPlanted bugs (run --bug ID, bank --bug ID)")?;
    for entry in table::ALL {
        let note = match (entry.later, entry.fixed_in) {
            (Some(later), _) => format!(" [with {later}]"),
            (None, Some(commit)) => format!(" [mended in {commit}]"),
            (None, None) => String::new(),
        };
        writeln!(desk.out, "  {:<4} {:<12} {}{note}", entry.id, entry.expects.join(" "), entry.sentence)?;
    }
    writeln!(desk.out, "\nMarks: what must sometimes happen")?;
    for (id, says) in marks {
        writeln!(desk.out, "  {id:<28} {says}")?;
    }
    Ok(0)
}
