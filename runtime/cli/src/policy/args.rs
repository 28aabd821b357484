//! What can be said after `tidegate policy`, and the help that teaches it. Decides nothing.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use tidegate_core::policy::Slot;

use super::settings::Given;
use crate::args::SiteAt;

/// Reads the name of a slot; a wrong one is answered with the nearest.
fn slot() -> impl TypedValueParser<Value = Slot> {
    PossibleValuesParser::new(Slot::ALL.map(Slot::name))
        .try_map(|word| Slot::of(&word).ok_or("no slot has this name"))
}

#[derive(Debug, ClapArgs)]
#[command(
    long_about = "Policies decide when and how recordings go to the cloud. Each is a WebAssembly component of a few \
                  kilobytes that answers one or more of five questions (slots): auto-scan, retry, concurrency, \
                  bandwidth, order. A site runs them fenced in: it bounds what they may cost, keeps every answer \
                  within safe limits, and goes back to the last good one by itself when one fails.",
    after_help = "From nothing to a running policy:\n  tidegate policy new night --hook concurrency   a small project, \
                  in Rust (or --lang c)\n  tidegate policy build night                    compile, make the component, \
                  check it\n  tidegate policy run night/policy.wasm concurrency   one decision, with its cost\n  \
                  tidegate policy load concurrency night/policy.wasm  give it to a site, which says what would change\n  \
                  tidegate policy shadow concurrency 3f2a             let it decide beside the active one, uncounted\n  \
                  tidegate policy activate concurrency 3f2a           let it decide\n  \
                  tidegate policy list                                who decides now, and how it fares\n  \
                  tidegate policy rollback                            back to the last set that was good\n\n\
                  new, build, check, run, bench, replay, diff, sign and pin need no site. The others speak with a \
                  running one (--api).\nThe whole way is in docs/policies.md.\n\n\
                  Exit codes: 0 done, 1 failed or refused, 2 usage."
)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Write a small policy project into a new directory
    New(New),
    /// Compile a project, make the component of it, and check it
    Build(Build),
    /// Admit a module as a site would: named errors, or what it is, takes and costs
    Check(Check),
    /// Ask a module one question and show its answer, its reason and its cost
    Run(RunOne),
    /// Measure decisions of a module, next to the built-in rules
    Bench(Bench),
    /// Ask a module what a site asked before, and compare with what was decided then
    Replay(Replay),
    /// Ask two modules what a site asked before, and compare the two
    Diff(Diff),
    /// Sign a module with an ed25519 key
    Sign(Sign),
    /// Print the hash of a module, or write it into the policy.toml beside it
    Pin(Pin),
    /// Give a module to a site: it is admitted there, and what it would change is shown
    Load(Load),
    /// Let an admitted module decide in a slot
    Activate(Activate),
    /// Let an admitted module decide beside the active one, without effect
    Shadow(Shadow),
    /// Give a slot back to the site's default policy
    Reset(Reset),
    /// Go back to the last good set, or to the set of a generation
    Rollback(Rollback),
    /// Show who decides in each slot, the modules and what is quarantined
    List(List),
    /// Show the changes of policies, newest first
    History(History),
    /// Forbid a module by its hash until it is released
    Quarantine(QuarantineModule),
    /// Allow a quarantined module again
    Unquarantine(Unquarantine),
    /// Print recent decisions of a slot with their questions, one JSON object a line
    Decisions(Decisions),
}

/// Settings of a module.
#[derive(Debug, ClapArgs)]
pub(crate) struct SettingsArg {
    /// A setting of the module, repeatable: true or false, a whole number, or a text ("5" in quotes is a text)
    #[arg(long = "settings", visible_alias = "setting", value_name = "KEY=VALUE")]
    pub(crate) given: Vec<Given>,
}

/// The language of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    /// Rust without the standard library
    Rust,
    /// C without a C library
    C,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy new my-retry --hook retry\n  tidegate policy new night --lang c \
                  --hook concurrency\n\nThe project holds everything it needs, the contract (WIT) \
                  included; `tidegate policy build` compiles it."
)]
pub(crate) struct New {
    /// The directory to make; its last part becomes the name of the policy
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The language
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    pub(crate) lang: Lang,
    /// The slot that it answers for; more can be added in its source
    #[arg(long, value_name = "SLOT", value_parser = slot(), default_value = "retry")]
    pub(crate) hook: Slot,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Writes policy.wasm into the directory and checks it as `check` does.\n\nRust: cargo with the target \
                  wasm32-unknown-unknown, or Debian's rustc-web with rust-web-src and a wasm-ld.\nC: a clang with \
                  wasm-ld, or Python's ziglang.\nAnother \
                  language: name the core module that its compiler made, in the place of the directory.\nWhat is used is \
                  printed; what is missing is named with the command that installs it. No wasm tool is needed: the \
                  component is made by this program."
)]
pub(crate) struct Build {
    /// The project, or a core module
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy check policy.wasm\n  tidegate policy check policy.wasm --settings \
                  from-hour=21 --vectors vectors/concurrency.jsonl\n\nA refusal starts with its code (imports, types, \
                  limits, …); docs/policies.md says what each means."
)]
pub(crate) struct Check {
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    /// Questions with the answers that are expected, one JSON object a line; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: Vec<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy run policy.wasm retry                        ask an example\n  \
                  tidegate policy run policy.wasm retry --example > q.json     print the example, to change it\n  \
                  tidegate policy run policy.wasm retry --input q.json\n  tidegate policy decisions retry | head -1 | \
                  tidegate policy run policy.wasm retry --input -\n\nThe answer is shown as the module gives it; a site \
                  clamps it before it obeys (docs/policies.md)."
)]
pub(crate) struct RunOne {
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    /// The question
    #[arg(value_name = "SLOT", value_parser = slot())]
    pub(crate) slot: Slot,
    /// A file with the question as JSON, or a recorded decision; `-` is standard input [default: an example]
    #[arg(long, value_name = "FILE", conflicts_with = "example")]
    pub(crate) input: Option<PathBuf>,
    /// Print an example of the question and ask nothing
    #[arg(long)]
    pub(crate) example: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Every decision of a site is made by a fresh instance: that is the first column of times. Beside it, \
                  in the same run: the built-in rules as native code. Quiet machines give steadier numbers; the median \
                  is shown with the 99th percentile."
)]
pub(crate) struct Bench {
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    /// One slot alone [default: every slot it serves]
    #[arg(value_name = "SLOT", value_parser = slot())]
    pub(crate) slot: Option<Slot>,
    /// Decisions per slot
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) decisions: u32,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy decisions retry > decisions.jsonl\n  tidegate policy replay policy.wasm \
                  decisions.jsonl\n\nDecisions of slots that the module does not serve are left out, and counted."
)]
pub(crate) struct Replay {
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    /// Decisions as `tidegate policy decisions` prints them; `-` is standard input
    #[arg(value_name = "DECISIONS")]
    pub(crate) decisions: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    /// Most differences that are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) show: usize,
    /// End with 1 if an answer is different
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  tidegate policy diff old.wasm new.wasm decisions.jsonl\n\nBoth get the same settings; \
                  --settings-a and --settings-b add to them for one of the two."
)]
pub(crate) struct Diff {
    /// One component
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    /// Decisions as `tidegate policy decisions` prints them; `-` is standard input
    #[arg(value_name = "DECISIONS")]
    pub(crate) decisions: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    /// A setting of A alone, repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) settings_a: Vec<Given>,
    /// A setting of B alone, repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) settings_b: Vec<Given>,
    /// Most differences that are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) show: usize,
    /// End with 1 if an answer is different
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy sign policy.wasm --new-key berlin.key   make a key, sign with it\n  \
                  tidegate policy sign policy.wasm --key berlin.key       sign with a key that is there\n\nWrites \
                  MODULE.sig beside the module and prints the line of the configuration that trusts the key. Keep the \
                  key file to yourself (it is made with mode 0600); sites need the public key alone."
)]
pub(crate) struct Sign {
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    /// File of an ed25519 key, as --new-key writes it
    #[arg(long, value_name = "FILE", required_unless_present = "new_key", conflicts_with = "new_key")]
    pub(crate) key: Option<PathBuf>,
    /// Make a key and write it to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key: Option<PathBuf>,
    /// Counts the signatures of this policy: a site refuses a lower one than it saw, so that nobody can bring an old
    /// version back [default: seconds since 1970]
    #[arg(long, value_name = "N")]
    pub(crate) counter: Option<u64>,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy pin policy.wasm              print the line\n  tidegate policy pin \
                  policy.wasm --write      also write it into the policy.toml beside it"
)]
pub(crate) struct Pin {
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    /// Write its hash into the policy.toml beside it
    #[arg(long)]
    pub(crate) write: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy load retry policy.wasm                   admit, show what would change\n  \
                  tidegate policy load retry policy.wasm --shadow          and let it decide beside the active one\n  \
                  tidegate policy load retry policy.wasm --activate        and let it decide\n\nA signature beside the \
                  module (policy.wasm.sig) is sent with it. A site with trusted keys takes nothing else."
)]
pub(crate) struct Load {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = slot())]
    pub(crate) slot: Slot,
    /// The component
    #[arg(value_name = "MODULE")]
    pub(crate) module: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    /// Let it decide as soon as it is admitted
    #[arg(long, conflicts_with = "shadow")]
    pub(crate) activate: bool,
    /// Let it decide beside the active one as soon as it is admitted
    #[arg(long)]
    pub(crate) shadow: bool,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy activate retry 3f2a\n  tidegate policy activate bandwidth night-window \
                  --settings from-hour=21\n\nThe next decision is its own. It is on probation for a while (docs/\
                  policies.md): if it fails, the site goes back by itself."
)]
pub(crate) struct Activate {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = slot())]
    pub(crate) slot: Slot,
    /// The module: the first digits of its hash, or its name if one alone has it
    #[arg(value_name = "MODULE")]
    pub(crate) module: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy shadow retry 3f2a       decide beside the active one, without effect\n  \
                  tidegate policy shadow                  what it decided differently so far\n  \
                  tidegate policy shadow --end            enough seen"
)]
pub(crate) struct Shadow {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = slot(), requires = "module")]
    pub(crate) slot: Option<Slot>,
    /// The module: the first digits of its hash, or its name if one alone has it
    #[arg(value_name = "MODULE")]
    pub(crate) module: Option<String>,
    #[command(flatten)]
    pub(crate) settings: SettingsArg,
    /// End the shadow run
    #[arg(long, conflicts_with_all = ["slot", "module"])]
    pub(crate) end: bool,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Reset {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = slot())]
    pub(crate) slot: Slot,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy rollback        the last set that passed its probation\n  tidegate policy \
                  rollback 4      the set of generation 4, as `tidegate policy history` lists it"
)]
pub(crate) struct Rollback {
    /// The generation to go back to [default: the last good one]
    #[arg(value_name = "GENERATION")]
    pub(crate) generation: Option<u64>,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct List {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  tidegate policy quarantine 3f2a --reason \"starves robot-7\"\n\nThe same bytes are refused \
                  until `tidegate policy unquarantine`. If it decides somewhere now, the slot goes back to the last \
                  good module at once. (`tidegate quarantine` is about something else: inputs that made the core panic.)"
)]
pub(crate) struct QuarantineModule {
    /// The module: the first digits of its hash, or its name if one alone has it
    #[arg(value_name = "MODULE")]
    pub(crate) module: String,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Unquarantine {
    /// The module: the first digits of its hash, or its name if one alone has it
    #[arg(value_name = "MODULE")]
    pub(crate) module: String,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate policy decisions retry > decisions.jsonl\n  tidegate policy decisions retry \
                  --limit 10\n\nWhat it prints is what `tidegate policy replay`, `diff` and `run --input` read. Newest \
                  last."
)]
pub(crate) struct Decisions {
    /// The slot
    #[arg(value_name = "SLOT", value_parser = slot())]
    pub(crate) slot: Slot,
    /// Most decisions that are printed [default: all that the site keeps]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}
