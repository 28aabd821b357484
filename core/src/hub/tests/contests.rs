//! Programs that fight over one id, as the hub has it: who is turned away, what viewers are told, and when it is over.

use super::*;
use crate::effect::ContestView;

impl Rig {
    /// A program at this address asks for the recorder link.
    fn comes(&mut self, device: &str, remote: &str) -> (Option<ConnId>, Seen) {
        self.sockets += 1;
        let (socket, device) = (SocketId(self.sockets), id(device));
        let knock = Knock {
            socket,
            device: &device,
            role: Role::Recorder,
            remote,
            port: Some(7),
            proof: Proof::Nothing,
        };
        let seen = self.step(|hub, cx| hub.on_knock(cx, knock));
        let conn = seen.effects.iter().find_map(|effect| match effect {
            Effect::Admit { conn, .. } => Some(*conn),
            _ => None,
        });
        (conn, seen)
    }

    /// Two programs take the link from each other until the first pause; the last one's link and what it set off.
    fn fight(&mut self) -> (ConnId, Seen) {
        let mut last = None;
        for remote in ["a", "b", "a", "b", "a"] {
            self.pass(1_000);
            let (conn, seen) = self.comes("r1", remote);
            last = Some((conn.expect("the newest wins until the pause begins"), seen));
        }
        last.expect("five came")
    }
}

impl Seen {
    fn contests(&self) -> Vec<Option<&ContestView>> {
        let told = self.effects.iter().filter_map(|effect| match effect {
            Effect::Publish(Notice::Contest { contest, role: Role::Recorder, .. }) => Some(contest.as_ref()),
            _ => None,
        });
        told.collect()
    }

    fn turned_away_for(&self) -> u64 {
        match self.effects.as_slice() {
            [Effect::TurnAway { refusal: Refusal::Contested { retry_after_ms }, .. }] => *retry_after_ms,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_programs_that_fight_are_shown_with_both_addresses_and_the_last_one_keeps_the_link_for_a_pause() {
    let mut rig = Rig::new();
    let started = rig.now.wall;
    let (conn, seen) = rig.fight();
    let told = seen.contests();
    let [Some(view)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((view.owners.clone(), view.takeovers), (["b:7".to_string(), "a:7".to_string()], 4));
    assert_eq!(view.since, Wall(started.0 + 2_000), "when the first one was displaced");
    assert_eq!(view.closed_until, Some(Wall(rig.now.wall.0 + 10_000)));

    rig.pass(1);
    let (none, seen) = rig.comes("r1", "b");
    assert_eq!((none, seen.turned_away_for()), (None, 9_999));
    assert!(rig.hub.is_current(conn, Role::Recorder), "nothing happened to the one that has the link");
    assert!(rig.comes("r1", "a").0.is_none(), "also the same address: it cannot be told from the other");
    assert!(rig.comes("r2", "b").0.is_some(), "another device has nothing to do with it");
    assert!(rig.knock("r1", Role::Transfer).0.is_some(), "nor has the other program of this one");
}

#[test]
fn after_the_pause_one_may_take_over_and_the_next_pause_is_longer() {
    let mut rig = Rig::new();
    rig.fight();
    let mut pause = 10_000;
    for (remote, longer) in [("b", 20_000), ("a", 40_000), ("b", 60_000), ("a", 60_000)] {
        rig.pass(pause - 1);
        assert_eq!(rig.comes("r1", remote).1.turned_away_for(), 1);
        rig.pass(1);
        let (conn, seen) = rig.comes("r1", remote);
        assert!(conn.is_some() && seen.contests().len() == 1, "the newest wins again: {seen:?}");
        assert_eq!(rig.comes("r1", remote).1.turned_away_for(), longer);
        pause = longer;
    }
}

#[test]
fn whoever_comes_when_no_link_is_up_is_let_in_and_the_fight_is_over() {
    let mut rig = Rig::new();
    let (conn, _) = rig.fight();
    let (_, seen) = rig.lost(conn);
    assert_eq!(seen.contests(), [None]);
    let (conn, seen) = rig.comes("r1", "b");
    assert!(conn.is_some() && seen.contests().is_empty(), "{seen:?}");
    assert!(rig.comes("r1", "a").0.is_some(), "and it is counted from the beginning");
}

#[test]
fn a_fight_that_is_quiet_for_ten_minutes_is_over() {
    let mut rig = Rig::new();
    let (conn, seen) = rig.fight();
    rig.answer(conn, &seen.request("get_state"), true, "idle", "");
    rig.pass(599_999);
    assert!(rig.wake().contests().is_empty());
    rig.pass(1);
    assert_eq!(rig.wake().contests(), [None]);
    let (conn, seen) = rig.comes("r1", "b");
    assert!(conn.is_some() && seen.contests().is_empty(), "{seen:?}");
}

#[test]
fn a_robot_whose_link_breaks_again_and_again_is_given_six_takeovers() {
    let mut rig = Rig::new();
    for _ in 0..7 {
        rig.pass(1_000);
        assert!(rig.comes("r1", "a").0.is_some());
    }
    assert_eq!(rig.comes("r1", "a").1.turned_away_for(), 10_000);
    for _ in 0..20 {
        rig.pass(1_000);
        let (conn, _) = rig.comes("r2", "a");
        rig.lost(conn.expect("a link that ends first is no takeover"));
    }
}

#[test]
fn uploaders_fight_as_recorders_do() {
    let mut rig = Rig::new();
    for _ in 0..7 {
        rig.transfer("r1");
    }
    let (conn, seen) = rig.knock("r1", Role::Transfer);
    assert_eq!((conn, seen.turned_away_for()), (None, 10_000));
}
