//! The free space of the disk decides whether devices may upload. Asking them is with the tasks' own tests.

use std::vec::Vec;

use crate::effect::{Effect, Gate, Output};
use crate::id::Boot;
use crate::input::Input;
use crate::knobs::Knobs;
use crate::machine::{Machine, Rows};
use crate::policy::Builtin;
use crate::time::{Mono, Now, Wall};

const RESERVE: u64 = 1_000;

fn gates(machine: &mut Machine, input: &Input) -> Vec<Gate> {
    let mut out = Output::default();
    let mut policies = Builtin::new(Knobs::default().builtin);
    let now = Now { wall: Wall(1), mono: Mono(1) };
    machine.step(now, input, &Rows::new(), &mut policies, &mut out);
    assert!(out.changes.is_empty(), "{:?}", out.changes);
    let gate = |effect: &Effect| if let Effect::Gate(gate) = effect { Some(*gate) } else { None };
    out.effects.iter().filter_map(gate).collect()
}

fn booted(reserve: u64) -> Machine {
    let mut machine = Machine::new();
    let knobs = Knobs { reserve, ..Knobs::default() };
    assert_eq!(gates(&mut machine, &Input::Boot { boot: Boot(1), seed: 7, knobs }), [Gate::Open]);
    machine
}

#[test]
fn the_gate_is_full_below_half_of_the_reserve_and_opens_again_at_all_of_it() {
    let mut machine = booted(RESERVE);
    for (free, gate) in [
        (999, &[][..]),
        (500, &[]),
        (499, &[Gate::Full]),
        // Between the marks it stays as it is.
        (500, &[]),
        (999, &[]),
        (1_000, &[Gate::Open]),
        (0, &[Gate::Full]),
    ] {
        assert_eq!(gates(&mut machine, &Input::Space { free }), gate, "{free}");
    }
}

#[test]
fn without_a_reserve_a_full_disk_closes_nothing() {
    let mut machine = booted(0);
    assert_eq!(gates(&mut machine, &Input::Space { free: 0 }), [Gate::Open]);
}

#[test]
fn room_does_not_open_the_gate_of_a_site_that_stops() {
    let mut machine = booted(RESERVE);
    assert_eq!(gates(&mut machine, &Input::Shutdown), [Gate::Stopping]);
    assert_eq!(gates(&mut machine, &Input::Space { free: u64::MAX }), []);
    assert_eq!(gates(&mut machine, &Input::Space { free: 0 }), []);
}
