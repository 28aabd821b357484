//! Rates over a paused clock.

use tokio::time::advance;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_burst_is_free_and_then_one_comes_at_a_time() {
    let rate = Rate::per_second(50, 1000);
    let mut bucket = Bucket::full();
    for n in 0..1000 {
        assert_eq!(bucket.take(rate), Ok(()), "{n}");
    }
    let wait = Duration::from_millis(20);
    assert_eq!(bucket.take(rate), Err(wait));
    assert_eq!(bucket.take(rate), Err(wait), "asking costs nothing");
    advance(wait).await;
    assert_eq!(bucket.take(rate), Ok(()));
    assert_eq!(bucket.take(rate), Err(wait));
    advance(Duration::from_secs(20)).await;
    for n in 0..1000 {
        assert_eq!(bucket.take(rate), Ok(()), "{n} after a rest");
    }
    assert_eq!(bucket.take(rate), Err(wait), "a long rest saves up no more than the burst");
}

#[tokio::test(start_paused = true)]
async fn each_has_a_rate_of_its_own_and_clones_count_together() {
    let brake: Brake<u32> = Brake::new(Rate::per_minute(10, 2));
    let same = brake.clone();
    assert_eq!((brake.take(1), same.take(1)), (Ok(()), Ok(())));
    assert_eq!(brake.take(1), Err(Duration::from_secs(6)));
    assert_eq!(brake.wait(&1), Some(Duration::from_secs(6)));
    assert_eq!((brake.wait(&2), brake.take(2)), (None, Ok(())));
    advance(Duration::from_secs(6)).await;
    assert_eq!(brake.wait(&1), None);
}

#[tokio::test(start_paused = true)]
async fn however_many_come_few_are_remembered_and_the_worst_are_not_forgotten() {
    let brake: Brake<usize> = Brake::new(Rate::per_minute(1, 3));
    for _ in 0..3 {
        assert_eq!(brake.take(usize::MAX), Ok(()));
    }
    for n in 0..3 * KNOWN_MAX {
        assert_eq!(brake.take(n), Ok(()), "{n}");
        assert!(brake.used.lock().expect("nobody panicked").len() <= KNOWN_MAX);
    }
    assert!(brake.wait(&usize::MAX).is_some(), "the one who used all is still known");
    advance(Duration::from_secs(3600)).await;
    assert_eq!(brake.take(0), Ok(()));
    assert_eq!(brake.used.lock().expect("nobody panicked").len(), 1, "who rested is forgotten");
}

#[test]
fn a_network_of_ipv6_is_one_stranger_and_so_is_an_address_written_both_ways() {
    let of = |text: &str| stranger(text.parse().expect("an address"));
    assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
    assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    assert_eq!(of("::ffff:10.0.0.7"), of("10.0.0.7"));
    assert_ne!(of("10.0.0.7"), of("10.0.0.8"));
}

#[test]
fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
    let told = [0, 1, 1000, 1001].map(|ms| seconds(Duration::from_millis(ms)));
    assert_eq!(told, [1, 1, 1, 2]);
}
