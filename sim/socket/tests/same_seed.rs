//! The same seed plays the same life. Alone in its program: the order in which tokio ends the tasks of a host that crashes
//! hangs on their numbers, and those count on through a whole program.

use tidegate_sim_socket::socket_world::Keep;
use tidegate_sim_socket::whole_life::{Death, End, Plan, live};

/// More than tokio has lists of tasks; a power of two, as their number is.
const LISTS: u64 = 1 << 16;

/// Tokio keeps the tasks of a runtime in lists, by the remainder of their numbers, and ends one list after the other. Two
/// lives are equal only if their first tasks have the same remainder.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        loop {
            let id: u64 = tokio::spawn(async {}).id().to_string().parse().expect("a number");
            if id.is_multiple_of(LISTS) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn the_same_seed_plays_the_same_life() {
    let given = std::env::var("TIDEGATE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let play = || {
        align_task_ids();
        let keep = Keep::Subset { seed };
        let deaths = vec![
            Death::at_operation(300, End::PowerLoss(keep)),
            Death::at_operation(10, End::PowerLoss(keep)),
        ];
        live(Plan::new(seed, deaths)).unwrap_or_else(|why| panic!("TIDEGATE_SEED={seed}: {why}"))
    };
    let (one, two) = (play(), play());
    assert_eq!(one.deaths, 2);
    assert_eq!(one.ops, two.ops);
    assert_eq!(one.device, two.device);
    assert_eq!(one, two);
}
