//! What counts of a recorder whose `get_state` fails, and what is shown of how it was asked.

use super::*;

impl Rig {
    /// A push that says that nothing changed: what a recorder says when it connects.
    fn greet(&mut self, conn: ConnId, state: &str, task: &str) -> Seen {
        self.say(
            conn,
            &RecorderMessage::StateUpdate {
                timestamp_ms: Some(1),
                previous: text(state),
                current: text(state),
                task: text(task),
            },
        )
    }
}

#[test]
fn a_greeting_counts_when_the_question_is_refused_or_not_answered() {
    let check = |fail: &dyn Fn(&mut Rig, ConnId, &str) -> Seen| {
        let mut rig = Rig::new();
        rig.transfer("r1");
        let (conn, first) = rig.recorder("r1");
        let seen = rig.greet(conn, "idle", "");
        assert!(seen.reports().is_empty(), "what was queued for the old link comes first");
        assert_eq!(*rig.ask(command(1, Action::Config, "T")).refusal(), Refusal::StateSyncing);
        let seen = fail(&mut rig, conn, &first.request("get_state"));
        assert_eq!(seen.reports(), [(Reported::Idle, None)]);
        let view = rig.view("r1");
        assert_eq!((view.confidence, view.source.as_str(), view.error), ("confirmed", "state_update", None));
        assert_eq!(rig.timers.len(), 0, "nobody asks again");
        rig.greet(conn, "idle", "");
        assert_eq!(rig.ask(command(2, Action::Config, "T")).actions(), ["config"]);
    };
    check(&|rig, _, _| rig.next_deadline());
    check(&|rig, conn, request| rig.answer(conn, request, false, "", ""));
}

#[test]
fn what_a_recorder_says_after_its_greeting_is_what_counts() {
    let mut rig = Rig::new();
    let (conn, _) = rig.recorder("r1");
    rig.greet(conn, "idle", "");
    rig.push(conn, 2, "recording", "T");
    assert_eq!(rig.next_deadline().reports(), [(Reported::Recording, text("T"))]);
}

#[test]
fn a_greeting_does_not_count_after_nonsense() {
    let after = |act: &dyn Fn(&mut Rig, ConnId, &str) -> Seen| {
        let mut rig = Rig::new();
        let (conn, first) = rig.recorder("r1");
        rig.greet(conn, "idle", "");
        let seen = act(&mut rig, conn, &first.request("get_state"));
        assert!(seen.reports().is_empty());
        assert_eq!(rig.view("r1").confidence, "stale");
    };
    after(&|rig, conn, request| rig.answer(conn, request, true, "", ""));
    after(&|rig, conn, request| rig.answer(conn, request, true, "recording", ""));
    after(&|rig, conn, request| {
        rig.push(conn, 2, "recording", "");
        rig.answer(conn, request, false, "", "")
    });
}

#[test]
fn a_push_that_says_what_was_before_is_no_greeting() {
    let mut rig = Rig::new();
    let (conn, _) = rig.recorder("r1");
    rig.push(conn, 1, "ready", "T");
    assert!(rig.next_deadline().reports().is_empty());
    assert_eq!(rig.view("r1").confidence, "stale");
}

#[test]
fn a_configuration_that_an_unconfirmed_link_says_it_took_counts_for_nothing() {
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    let applied = RecorderMessage::ConfigApplied { task: text("T") };
    assert!(rig.say(conn, &applied).is_silent(), "it may be of the old link");
    rig.answer(conn, &first.request("get_state"), true, "idle", "");
    assert_eq!(rig.say(conn, &applied).facts.len(), 1);
}

#[test]
fn viewers_see_when_a_recorder_was_asked_and_its_own_words() {
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    let asked = rig.now.wall;
    rig.pass(500);
    assert_eq!((rig.view("r1").asked_at, rig.view("r1").raw), (Some(asked), None));
    rig.push(conn, 1, "ready", "T");
    let raw = rig.view("r1").raw.expect("it said something");
    let raw: Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(raw, json!({"previous": "idle", "current": "ready", "task_id": "T"}));
    assert_eq!(rig.view("r1").asked_at, Some(asked), "not answered yet");
    rig.answer(conn, &first.request("get_state"), true, "idle", "");
    let view = rig.view("r1");
    assert_eq!((view.asked_at, view.raw.as_deref()), (None, Some(r#"{"state":"idle"}"#)));
}

#[test]
fn whoever_waits_for_a_state_at_a_takeover_is_told_of_the_new_link() {
    let mut rig = Rig::new();
    let old = rig.confirmed("r1", "recording", "T");
    rig.pass(2_000);
    rig.refresh(1, "r1", 1_000);
    let (new, seen) = rig.recorder("r1");
    let view = state_of(seen.reply());
    assert!(old < new && view.connected && !view.synced);
    assert_eq!((view.generation, view.state.as_str()), (new.generation(), "unknown"));
}
