//! Modules of a scenario: what each is like, and what people do with them. Names alone: how one behaves is the business of
//! the world's model of a host.

use tidegate_core::digest::Sha256;

/// What a module is like. Every one is a set of the built-in rules that deviates in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conduct {
    /// Sound: other numbers than the built-in rules, none of them unreasonable.
    Fair,
    /// Sound, serves retry alone.
    Narrow,
    /// Sound, and its admission takes half a minute.
    Slow,
    /// Refused at admission: it imports what nobody gives.
    Refused,
    /// Refused at admission: it is too large.
    Huge,
    /// Admitted; its configuration is refused whenever it is to be seated.
    Unfit,
    /// Traps at every question.
    Trap,
    /// Traps at one question of four.
    Flaky,
    /// Runs until its fuel is used up.
    Loop,
    /// Allocates until its memory is used up.
    Bomb,
    /// Answers in the wrong shape.
    Garbled,
    /// Takes too long by the clock, at one question of three.
    Late,
    /// Lets nothing begin, queues nothing and lets everything crawl.
    Idle,
    /// Lets nothing begin for four questions of five.
    Hesitant,
    /// Asks for as much as can be asked for, and for no wait at all.
    Greedy,
    /// Asks for nothing that could be obeyed: every number is the largest or the smallest there is.
    Absurd,
    /// Sound, and its memo is different every time.
    Memo,
    /// Tries to be random: what it says follows from the seed of the question, and from nothing else.
    Whim,
}

impl Conduct {
    /// All of them.
    pub const ALL: [Conduct; 18] = [
        Conduct::Fair,
        Conduct::Narrow,
        Conduct::Slow,
        Conduct::Refused,
        Conduct::Huge,
        Conduct::Unfit,
        Conduct::Trap,
        Conduct::Flaky,
        Conduct::Loop,
        Conduct::Bomb,
        Conduct::Garbled,
        Conduct::Late,
        Conduct::Idle,
        Conduct::Hesitant,
        Conduct::Greedy,
        Conduct::Absurd,
        Conduct::Memo,
        Conduct::Whim,
    ];

    /// Its word in files, logs and coverage.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Conduct::Fair => "fair",
            Conduct::Narrow => "narrow",
            Conduct::Slow => "slow-start",
            Conduct::Refused => "refused",
            Conduct::Huge => "huge",
            Conduct::Unfit => "unfit",
            Conduct::Trap => "trap",
            Conduct::Flaky => "flaky",
            Conduct::Loop => "loop",
            Conduct::Bomb => "bomb",
            Conduct::Garbled => "garbled",
            Conduct::Late => "late",
            Conduct::Idle => "idle",
            Conduct::Hesitant => "hesitant",
            Conduct::Greedy => "greedy",
            Conduct::Absurd => "absurd",
            Conduct::Memo => "memo",
            Conduct::Whim => "whim",
        }
    }
}

/// A module: what it is like, and a number that tells it from others of its kind. Both are its name, `trap-3`, and its name
/// stands for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleSpec {
    /// What it is like.
    pub conduct: Conduct,
    /// Its number.
    pub n: u32,
}

impl ModuleSpec {
    /// The module that sites with a default module have in every slot.
    pub const DEFAULT: ModuleSpec = ModuleSpec { conduct: Conduct::Fair, n: 0 };

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}-{}", self.conduct.word(), self.n)
    }

    /// Reads [`ModuleSpec::name`].
    #[must_use]
    pub fn of(name: &str) -> Option<ModuleSpec> {
        let (word, n) = name.rsplit_once('-')?;
        let conduct = Conduct::ALL.into_iter().find(|conduct| conduct.word() == word)?;
        // One spelling for each: what is read is written again.
        let n = n.parse().ok().filter(|number: &u32| number.to_string() == n)?;
        Some(ModuleSpec { conduct, n })
    }

    /// Hash of its bytes.
    #[must_use]
    pub fn hash(self) -> Sha256 {
        Sha256::of(format!("tidegate-sim module {}", self.name()).as_bytes())
    }
}

/// What an operator does with policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Brings a module.
    Put,
    /// Puts it under the hook.
    Activate,
    /// Back to what sits there by default.
    Reset,
    /// Lets it run beside the one that decides.
    Shadow,
    /// Ends that.
    ShadowEnd,
    /// Back to the last good set.
    Rollback,
    /// Back to the generation before this one.
    Back,
    /// Bars it.
    Quarantine,
    /// Lifts that.
    Unquarantine,
    /// Forgets it.
    Remove,
}

impl Deed {
    /// All of them.
    pub const ALL: [Deed; 10] = [
        Deed::Put,
        Deed::Activate,
        Deed::Reset,
        Deed::Shadow,
        Deed::ShadowEnd,
        Deed::Rollback,
        Deed::Back,
        Deed::Quarantine,
        Deed::Unquarantine,
        Deed::Remove,
    ];
}

#[cfg(test)]
mod tests {
    use super::{Conduct, ModuleSpec};

    #[test]
    fn every_module_has_one_name_and_one_hash() {
        for conduct in Conduct::ALL {
            let module = ModuleSpec { conduct, n: 12 };
            assert_eq!(ModuleSpec::of(&module.name()), Some(module));
            assert_ne!(module.hash(), ModuleSpec { n: 13, ..module }.hash());
        }
        for name in ["", "fair", "fair-", "fair-01", "fair--1", "nothing-1", "slow-1"] {
            assert_eq!(ModuleSpec::of(name), None, "{name}");
        }
    }
}
