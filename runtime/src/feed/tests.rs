//! Numbers without gaps, resuming, filters, and followers that are slow, many or gone.

mod events;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tidegate_core::effect::{LinkView, QueueCounts};
use tidegate_core::id::Role;

use super::*;

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("a legal id")
}

fn link(name: &str, version: u64) -> Notice {
    let view = LinkView { generation: version, remote: "10.0.0.7".to_owned(), connected_at: Wall(0) };
    Notice::Link { device: device(name), role: Role::Recorder, link: Some(view), why: None, version }
}

fn feed(events: usize) -> Feed {
    Feed::new(Boot(7), Board::new(), Window { events, bytes: 32 << 20 })
}

fn of_devices(names: &[&str]) -> Filter {
    Filter { devices: Some(names.iter().map(|name| device(name)).collect()), kinds: None }
}

/// A follower of everything that comes from now on.
fn follower(feed: &Feed, filter: Filter) -> Cursor {
    let (cursor, begin) = feed.follow(filter, None).expect("a seat");
    assert_eq!(begin, Begin::Snapshot(Reason::New));
    cursor
}

/// The data of the events that there are for a follower, each checked against its frame.
fn told(cursor: &mut Cursor) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        match cursor.take() {
            Taken::Nothing => return found,
            Taken::Behind { missed, newest } => panic!("behind by {missed}, up to {newest}"),
            Taken::Events(text) => {
                let text = String::from_utf8(text.to_vec()).expect("UTF-8");
                for frame in text.split_terminator("\n\n") {
                    let lines: Vec<&str> = frame.lines().collect();
                    let [id, name, data] = lines[..] else { panic!("three lines: {frame:?}") };
                    let data: Value =
                        serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
                    assert_eq!(id, format!("id: 7-{}", data["seq"]));
                    assert_eq!(name, format!("event: {}", data["type"].as_str().expect("a name")));
                    found.push(data);
                }
            }
        }
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect()
}

#[test]
fn numbers_have_no_gap_however_much_was_let_go() {
    let feed = feed(16);
    let mut cursor = follower(&feed, Filter::default());
    let mut seen = Vec::new();
    for n in 1..=100 {
        feed.publish(Wall(0), &link("r1", n));
        seen.extend(numbers(&told(&mut cursor)));
    }
    assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
    let figures = feed.figures();
    assert_eq!((figures.events, figures.window_events), (100, 16));
}

#[test]
fn memory_bounds_the_window_too_and_the_newest_event_stays() {
    let feed = Feed::new(Boot(7), Board::new(), Window { events: 1000, bytes: 2000 });
    for n in 1..=50 {
        feed.publish(Wall(0), &link("r1", n));
    }
    let figures = feed.figures();
    assert!(figures.window_bytes <= 2000 && figures.window_events >= 1, "{figures:?}");
    let narrow = Feed::new(Boot(7), Board::new(), Window { events: 1000, bytes: 1 });
    narrow.publish(Wall(0), &link("r1", 1));
    narrow.publish(Wall(0), &link("r1", 2));
    assert_eq!(narrow.figures().window_events, 1);
}

#[test]
fn who_comes_back_within_the_window_goes_on_right_after_what_it_saw() {
    let feed = feed(10);
    for n in 1..=20 {
        feed.publish(Wall(0), &link("r1", n));
    }
    for last in 10..=20 {
        let (mut cursor, begin) = feed.follow(Filter::default(), Some(&format!("7-{last}"))).expect("a seat");
        assert_eq!(begin, Begin::Resumed);
        assert_eq!(numbers(&told(&mut cursor)), (last + 1..=20).collect::<Vec<u64>>());
    }
    let begins = |last: &str| feed.follow(Filter::default(), Some(last)).expect("a seat").1;
    assert_eq!(begins("7-9"), Begin::Snapshot(Reason::TooOld));
    assert_eq!(begins("6-15"), Begin::Snapshot(Reason::OtherBoot));
    assert_eq!(begins("7-21"), Begin::Snapshot(Reason::Unknown), "it was not there yet");
    for nonsense in ["", "7", "7-", "-7", "7-+9", "x-1", "7-1-1", "99999999999999999999-1"] {
        assert_eq!(begins(nonsense), Begin::Snapshot(Reason::Unknown), "{nonsense}");
    }
}

#[test]
fn a_filter_leaves_out_what_it_must_and_each_event_names_the_one_before() {
    let feed = feed(100);
    let mut one = follower(&feed, of_devices(&["a", "c"]));
    let kinds = Some(BTreeSet::from([Kind::Queue]));
    let mut queue = follower(&feed, Filter { devices: None, kinds });
    for (n, name) in ["a", "b", "c", "b", "a"].into_iter().enumerate() {
        feed.publish(Wall(0), &link(name, n as u64 + 1));
        feed.publish(Wall(0), &Notice::Queue(QueueCounts::default()));
    }
    let seen = told(&mut one);
    assert_eq!(numbers(&seen), [1, 5, 9]);
    let prev: Vec<&str> = seen.iter().map(|event| event["prev"].as_str().expect("an id")).collect();
    assert_eq!(prev, ["7-0", "7-1", "7-5"]);
    assert!(seen.iter().all(|event| event["device_id"] == "a" || event["device_id"] == "c"));
    assert_eq!(numbers(&told(&mut queue)), [2, 4, 6, 8, 10]);

    let (mut back, begin) = feed.follow(of_devices(&["a"]), Some("7-1")).expect("a seat");
    assert_eq!(begin, Begin::Resumed);
    let seen = told(&mut back);
    assert_eq!((numbers(&seen), &seen[0]["prev"]), (vec![9], &Value::from("7-1")));
    let mut all = feed.follow(Filter::default(), Some("7-8")).expect("a seat").0;
    assert!(told(&mut all).iter().all(|event| event.get("prev").is_none()));
}

#[test]
fn the_keys_of_an_event_are_in_order_also_with_the_one_before() {
    let feed = feed(100);
    let mut cursor = follower(&feed, of_devices(&["a"]));
    feed.publish(Wall(1500), &link("a", 1));
    let Taken::Events(text) = cursor.take() else { panic!("an event") };
    assert_eq!(
        std::str::from_utf8(&text).expect("UTF-8"),
        "id: 7-1\nevent: device_connection\ndata: {\"connected\":false,\"connected_at\":\"1970-01-01T00:00:00Z\",\
         \"device_id\":\"a\",\"generation\":1,\"prev\":\"7-0\",\"recorder_connected\":true,\"remote_ip\":\"10.0.0.7\",\
         \"seq\":1,\"source\":\"recorder_connected\",\"state_version\":1,\"transfer_connected\":false,\
         \"type\":\"device_connection\",\"updated_at\":\"1970-01-01T00:00:01.5Z\"}\n\n"
    );
}

#[test]
fn one_that_is_too_slow_is_told_how_much_it_missed_until_it_begins_again() {
    let feed = feed(10);
    let mut slow = follower(&feed, Filter::default());
    feed.publish(Wall(0), &link("r1", 1));
    assert_eq!(numbers(&told(&mut slow)), [1]);
    for n in 2..=30 {
        feed.publish(Wall(0), &link("r1", n));
    }
    let behind = Taken::Behind { missed: 19, newest: 20 };
    assert_eq!(slow.take(), behind);
    assert_eq!(slow.take(), behind);
    assert_eq!(slow.skip(), 30);
    assert_eq!(slow.take(), Taken::Nothing);
    feed.publish(Wall(0), &link("r1", 31));
    assert_eq!(numbers(&told(&mut slow)), [31]);
}

#[test]
fn chunks_are_small_and_hold_whole_events() {
    let feed = feed(5000);
    let mut cursor = follower(&feed, Filter::default());
    for n in 1..=1000 {
        feed.publish(Wall(0), &link(&"x".repeat(100), n));
    }
    let (mut chunks, mut events) = (0, 0);
    while let Taken::Events(text) = cursor.take() {
        assert!(text.len() <= cursor::CHUNK && text.ends_with(b"}\n\n"));
        (chunks, events) = (chunks + 1, events + text.split(|byte| *byte == b'\n').count() / 4);
    }
    assert!(chunks > 5, "{chunks}");
    assert_eq!(events, 1000);
}

#[test]
fn seats_are_bounded_and_come_back() {
    let feed = feed(10);
    let mut all: Vec<Cursor> = (0..STREAMS_MAX).map(|_| follower(&feed, Filter::default())).collect();
    assert!(feed.follow(Filter::default(), None).is_err());
    assert_eq!((feed.figures().streams, feed.figures().turned_away), (64, 1));
    all.pop();
    let _last = follower(&feed, Filter::default());
    assert!(feed.follow(Filter::default(), None).is_err());
}

#[test]
fn refusals_of_one_device_are_told_once_a_second_with_how_many_were_not() {
    let feed = feed(100);
    let mut cursor = follower(&feed, Filter::default());
    let refused =
        |name: &str, code| Notice::Refused { device: device(name), code, detail: "no such task".to_owned() };
    for at in [0, 10, 999] {
        feed.publish(Wall(at), &refused("a", "not_owned"));
    }
    feed.publish(Wall(999), &refused("b", "not_owned"));
    feed.publish(Wall(999), &refused("a", "another"));
    feed.publish(Wall(1000), &refused("a", "not_owned"));
    let seen = told(&mut cursor);
    let short: Vec<_> = seen.iter().map(|e| (e["device_id"].as_str(), e["suppressed"].as_u64())).collect();
    assert_eq!(
        short,
        [(Some("a"), Some(0)), (Some("b"), Some(0)), (Some("a"), Some(0)), (Some("a"), Some(2))]
    );
    assert_eq!(feed.board().counted().refused["not_owned"], 5, "each is counted");
    for n in 0..3 * REFUSALS_MAX {
        feed.publish(Wall(5000), &refused(&format!("d{n}"), "not_owned"));
    }
    assert!(feed.ring().refusals.len() <= REFUSALS_MAX);
}

#[test]
fn what_was_held_back_is_told_after_a_second_although_nothing_follows() {
    let feed = feed(4 * REFUSALS_MAX);
    let mut cursor = follower(&feed, Filter::default());
    let refused = |name: &str, code, detail: &str| Notice::Refused {
        device: device(name),
        code,
        detail: detail.to_owned(),
    };
    assert_eq!(feed.publish(Wall(0), &refused("a", "not_owned", "first")), Some(0));
    assert!(!feed.holds_back());
    for at in 1..=1024 {
        assert_eq!(feed.publish(Wall(at / 2), &refused("a", "not_owned", &format!("no. {at}"))), None);
    }
    assert!(feed.holds_back() && feed.publish_held(Wall(999)).is_empty());
    let due = feed.publish_held(Wall(1000));
    assert_eq!(due, [(refused("a", "not_owned", "no. 1024"), 1023)]);
    assert!(!feed.holds_back() && feed.publish_held(Wall(5000)).is_empty(), "it is told once");
    let seen = told(&mut cursor);
    let short: Vec<_> = seen.iter().map(|e| (e["detail"].as_str(), e["suppressed"].as_u64())).collect();
    assert_eq!(short, [(Some("first"), Some(0)), (Some("no. 1024"), Some(1023))]);
    assert_eq!(feed.board().counted().refused["not_owned"], 1025, "each is counted once");
    // What was told late counts as told: the next one waits again, and tells of itself alone.
    assert_eq!(feed.publish(Wall(1500), &refused("a", "not_owned", "again")), None);
    assert_eq!(feed.publish(Wall(2000), &refused("a", "not_owned", "and again")), Some(1));
    assert!(!feed.holds_back());
    // So many at once that not all can be remembered push out nothing that is held back.
    assert_eq!(feed.publish(Wall(2001), &refused("a", "not_owned", "kept")), None);
    for n in 0..2 * REFUSALS_MAX {
        feed.publish(Wall(2002), &refused(&format!("d{n}"), "not_owned", "one of many"));
    }
    assert_eq!(feed.publish_held(Wall(3000)), [(refused("a", "not_owned", "kept"), 0)]);
}

// Several recordings may be given up in one moment, and of each this is the last that anybody hears.
#[test]
fn each_recording_that_is_given_up_is_told() {
    let feed = feed(100);
    let mut cursor = follower(&feed, Filter::default());
    for n in 0..17 {
        let detail = format!("take-{n}");
        let notice = Notice::Refused { device: device("a"), code: "recording_missing", detail };
        assert_eq!(feed.publish(Wall(0), &notice), Some(0));
    }
    assert_eq!(told(&mut cursor).len(), 17);
    assert!(!feed.holds_back());
}

#[tokio::test]
async fn waiting_ends_with_the_flush_after_an_event_and_not_before() {
    let feed = feed(10);
    let mut cursor = follower(&feed, Filter::default());
    feed.publish(Wall(0), &link("r1", 1));
    let early = tokio::time::timeout(Duration::ZERO, cursor.wait()).await;
    assert!(early.is_err(), "nobody was told yet");
    feed.flush();
    cursor.wait().await;
    assert_eq!(numbers(&told(&mut cursor)), [1]);
}

#[test]
fn followers_that_come_and_go_while_events_are_published_break_nobody() {
    let feed = feed(64);
    let publisher = {
        let feed = feed.clone();
        std::thread::spawn(move || {
            for n in 1..=20_000 {
                feed.publish(Wall(0), &link("r1", n));
                if n % 16 == 0 {
                    feed.flush();
                }
            }
        })
    };
    let followers: Vec<_> = (0..4)
        .map(|_| {
            let feed = feed.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    let (mut cursor, _) = feed.follow(Filter::default(), None).expect("a seat");
                    let mut next = None;
                    for _ in 0..3 {
                        if let Taken::Events(text) = cursor.take() {
                            let text = std::str::from_utf8(&text).expect("UTF-8").to_owned();
                            for id in text.lines().filter_map(|line| line.strip_prefix("id: 7-")) {
                                let id: u64 = id.parse().expect("a number");
                                assert!(next.is_none_or(|next| next == id), "{next:?} was due, {id} came");
                                next = Some(id + 1);
                            }
                        }
                    }
                }
            })
        })
        .collect();
    publisher.join().expect("the publisher is never harmed");
    for follower in followers {
        follower.join().expect("a follower sees no gap");
    }
    let figures = feed.figures();
    assert_eq!((figures.events, figures.streams), (20_000, 0));
}
