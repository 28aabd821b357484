//! What the board remembers, and what it lets go.

use tidegate_core::effect::{LinkView, Notice};
use tidegate_core::id::{DeviceId, EpisodeId, JobId, Role};
use tidegate_core::time::Wall;

use super::{Board, DEVICES_MAX, LinkLeft};

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("a legal id")
}

fn link(name: &str, role: Role, up: Option<i64>) -> Notice {
    let link = up.map(|at| LinkView { generation: 1, remote: "10.0.0.7".to_owned(), connected_at: Wall(at) });
    Notice::Link { device: device(name), role, link, why: None, version: 1 }
}

#[test]
fn a_sign_of_life_counts_only_while_the_link_is_up() {
    let board = Board::new();
    board.seen(&device("r1"), Role::Recorder, Wall(5));
    assert!(board.device(&device("r1")).is_none());
    board.apply(Wall(10), &link("r1", Role::Recorder, Some(10)));
    board.seen(&device("r1"), Role::Recorder, Wall(25));
    board.seen(&device("r1"), Role::Recorder, Wall(20));
    let seen = board.device(&device("r1")).expect("it is known");
    assert_eq!(seen.recorder_link.expect("it is up").last_seen, Wall(25));
    board.apply(Wall(30), &link("r1", Role::Recorder, None));
    assert!(board.linked(Role::Recorder).is_empty());
}

#[test]
fn where_a_recorder_was_linked_from_last_is_known_until_it_is_linked_again() {
    let board = Board::new();
    let left = || board.device(&device("r1")).and_then(|seen| seen.recorder_left);
    board.apply(Wall(10), &link("r1", Role::Recorder, Some(10)));
    assert_eq!(left(), None);
    let was = Some(LinkLeft { remote: "10.0.0.7".to_owned(), at: Wall(30) });
    board.apply(Wall(30), &link("r1", Role::Recorder, None));
    assert_eq!(left(), was);
    for (role, up) in [(Role::Recorder, None), (Role::Transfer, Some(40)), (Role::Transfer, None)] {
        board.apply(Wall(40), &link("r1", role, up));
        assert_eq!(left(), was);
    }
    board.apply(Wall(50), &link("r1", Role::Recorder, Some(50)));
    assert_eq!(left(), None);
}

#[test]
fn the_board_forgets_the_device_that_left_longest_ago_and_never_a_linked_one() {
    let board = Board::new();
    board.apply(Wall(0), &link("stays", Role::Transfer, Some(0)));
    for n in 0..DEVICES_MAX + 10 {
        board.apply(Wall(1), &link(&format!("d{n}"), Role::Recorder, None));
    }
    assert_eq!(board.inner().devices.len(), DEVICES_MAX);
    assert!(board.device(&device("stays")).is_some());
    assert!(board.device(&device("d0")).is_none());
    assert!(board.device(&device(&format!("d{}", DEVICES_MAX + 9))).is_some());
}

#[test]
fn progress_is_kept_until_it_ends() {
    let board = Board::new();
    let notice =
        Notice::Progress { episode: EpisodeId(3), job: JobId(9), uploaded: 5, total: 10, at: Wall(1) };
    board.apply(Wall(1), &notice);
    assert_eq!(board.progress(EpisodeId(3)).expect("it runs").uploaded, 5);
    board.apply(Wall(2), &Notice::ProgressEnded { episode: EpisodeId(3) });
    assert!(board.progress(EpisodeId(3)).is_none());
}
