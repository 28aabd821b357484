//! Power losses of a site, at any operation of its disk, with images of what a disk may hold then, and once more while
//! the site comes back. What was promised holds, and the life of the recording ends as if nothing had happened.

use std::collections::BTreeMap;

use tidegate_sim_socket::socket_world::{DiskOp, Keep};
use tidegate_sim_socket::whole_life::{Death, End, Plan, Report, Until, live};

/// Where the choices come from; `TIDEGATE_SEED` repeats a run exactly.
fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// Power losses wanted in whole lives: some, a number, or `all`.
fn crashes_wanted(all: usize) -> usize {
    match std::env::var("TIDEGATE_POWER_CRASHES").as_deref() {
        Ok("all") => all,
        Ok(number) => number.parse().expect("TIDEGATE_POWER_CRASHES is a number or \"all\""),
        Err(_) => 24,
    }
}

fn images(rng: &mut fastrand::Rng) -> [Keep; 3] {
    [Keep::Nothing, Keep::Prefix { seed: rng.u64(..) }, Keep::Subset { seed: rng.u64(..) }]
}

/// Lives of one world that end at an operation; all that went wrong is told at once.
struct Lives {
    seed: u64,
    until: Until,
    lived: usize,
    deaths: usize,
    wrong: Vec<String>,
}

impl Lives {
    fn new(seed: u64, until: Until) -> Lives {
        Lives { seed, until, lived: 0, deaths: 0, wrong: Vec::new() }
    }

    fn calm(&self) -> Report {
        let plan = Plan { until: self.until, ..Plan::new(self.seed, Vec::new()) };
        let calm = live(plan).expect("a life without a death");
        assert_eq!(calm.deaths, 0);
        calm
    }

    /// Dies at operation `n`, and again at operation `again` of the next start.
    fn dies_at(&mut self, calm: &Report, n: u64, keep: Keep, again: u64, keep_again: Keep) {
        let deaths = vec![
            Death::at_operation(n, End::PowerLoss(keep)),
            Death::at_operation(again, End::PowerLoss(keep_again)),
        ];
        self.lived += 1;
        let at = &calm.ops[usize::try_from(n).expect("few") - 1];
        let what = format!("at {at:?} {keep:?}, then at {again} {keep_again:?}");
        match live(Plan { until: self.until, ..Plan::new(self.seed, deaths) }) {
            Ok(report) if report.deaths == 0 => self.wrong.push(format!("no death {what}")),
            Ok(report) => self.deaths += report.deaths,
            Err(why) => self.wrong.push(format!("{what}: {why}")),
        }
    }

    /// A line for people, if all went well.
    fn judge(self) -> String {
        let Lives { seed, lived, deaths, wrong, .. } = self;
        assert!(wrong.is_empty(), "TIDEGATE_SEED={seed}\n{}", wrong.join("\n\n"));
        assert!(deaths > lived, "hardly any start was interrupted: {deaths} power losses in {lived} lives");
        format!("TIDEGATE_SEED={seed}: {lived} lives, {deaths} power losses")
    }
}

#[test]
fn the_first_start_survives_power_losses_at_each_of_its_operations() {
    let mut lives = Lives::new(seed(), Until::TaskTaken);
    let mut rng = fastrand::Rng::with_seed(lives.seed);
    let calm = lives.calm();
    assert!(calm.served_at >= 20, "a first start makes folders, files and a database: {}", calm.served_at);
    for n in 1..=calm.served_at {
        for keep in images(&mut rng) {
            let (again, keep_again) = (rng.u64(1..=calm.served_at), images(&mut rng)[rng.usize(..3)]);
            lives.dies_at(&calm, n, keep, again, keep_again);
        }
    }
    println!("{}", lives.judge());
}

/// Operations of the same kind on the same kind of file: one of them is much like another.
fn class(op: &DiskOp) -> String {
    let path = op.path.to_string_lossy();
    let folders = ["blobs", "uploads", "buckets", "tmp"];
    let place = folders.into_iter().find(|folder| path.contains(folder));
    format!("{:?} {}", op.verb, place.unwrap_or("database"))
}

/// Operations in an order in which each class comes early, by chance within it.
fn spread(ops: &[DiskOp], rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut classes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for op in ops {
        classes.entry(class(op)).or_default().push(op.n);
    }
    classes.values_mut().for_each(|class| rng.shuffle(class));
    let mut order = Vec::with_capacity(ops.len());
    while order.len() < ops.len() {
        order.extend(classes.values_mut().filter_map(Vec::pop));
    }
    order
}

#[test]
fn a_recording_survives_power_losses_anywhere_in_its_life() {
    let mut lives = Lives::new(seed(), Until::Delivered);
    let mut rng = fastrand::Rng::with_seed(lives.seed);
    let calm = lives.calm();
    let served = usize::try_from(calm.served_at).expect("few");
    let ops = &calm.ops[served..];
    println!("{} operations, {served} of them in the first start; {:?}", calm.ops.len(), calm.took);
    let plan: Vec<(u64, Keep)> =
        spread(ops, &mut rng).into_iter().flat_map(|n| images(&mut rng).map(|keep| (n, keep))).collect();
    let all = plan.len();
    let wanted = crashes_wanted(all).min(all);
    // With fewer than all, each operation has one of the images.
    let step = if wanted * 3 <= all { 3 } else { 1 };
    for (at, chunk) in plan.chunks(step).take(wanted).enumerate() {
        let (n, keep) = chunk[at % chunk.len()];
        let (again, keep_again) = (rng.u64(1..=2 * calm.served_at), images(&mut rng)[rng.usize(..3)]);
        lives.dies_at(&calm, n, keep, again, keep_again);
    }
    println!("{}", lives.judge());
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let seed = seed();
    let calm = live(Plan::new(seed, Vec::new())).expect("a life without a death");
    // Nearly at the end: everything was promised by then.
    let late = calm.ops.len() as u64 - 2;
    let deaths = vec![Death::at_operation(late, End::PowerLoss(Keep::Nothing))];
    let why =
        live(Plan { lying_disk: true, ..Plan::new(seed, deaths) }).expect_err("nothing can have survived");
    assert!(why.contains("is lost"), "TIDEGATE_SEED={seed}: {why}");
    // It is the lie that does it.
    let deaths = vec![Death::at_operation(late, End::PowerLoss(Keep::Nothing))];
    live(Plan::new(seed, deaths)).expect("the same with an honest disk");
}
