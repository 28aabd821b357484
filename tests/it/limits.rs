//! A site that may have few files and sockets open: who dials is answered or hung up on, and those that are there stay.

use std::time::Duration;

use serde_json::json;
use tidegate_device::{Incoming, Opcode, WsError};
use tokio::task::JoinSet;

use crate::rig::{Plan, Raw, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader};

/// Enough for the site itself, half for links.
const FILES: u32 = 128;
/// Links that it then has room for.
const LINKS: usize = 64;
/// Devices that dial at once.
const CROWD: usize = 200;

#[test]
fn with_few_descriptors_whoever_dials_is_answered_or_closed_and_those_that_are_there_stay() {
    run(async {
        let site = Plan::new().start_with_files(FILES).await;
        let log = site.log();
        assert!(log.contains("descriptors soft=128 hard=128 links=64 connections=16 reserve=64"), "{log}");
        assert_eq!(metric(&site, "tidegate_links_capacity").await, Some(64));
        let mut recorder = Recorder::connect(&site, "stays").await;
        let mut uploader = Uploader::connect(&site, "stays").await;
        let before = site.read("/api/v1/devices/stays/connection").await;

        let mut dials = JoinSet::new();
        for n in 0..CROWD {
            let api = site.api;
            dials.spawn(async move {
                let path = format!("/recorder/crowd-{n}");
                let dial = Raw::dial(&tidegate_runtime::real::RealNet, "127.0.0.1", api, &path, &[]);
                tokio::time::timeout(STEP, dial).await
            });
        }
        let mut crowd = Vec::new();
        while let Some(dialled) = dials.join_next().await {
            match dialled.expect("a dial does not panic").expect("nobody waits for ever") {
                Ok(link) => crowd.push(link),
                Err(WsError::Declined { status, .. }) => assert_eq!(status, 503),
                // Hung up on.
                Err(_) => {}
            }
        }
        let linked = crowd.len();
        assert!((20..usize::try_from(FILES).unwrap()).contains(&linked), "{linked} links");
        // One after the other they are let in up to the bound, and then each is told that there is no room.
        let stranger = async |n: usize| site.dial(&format!("/recorder/late-{n}")).await;
        let full = loop {
            match stranger(crowd.len()).await {
                Ok(link) => crowd.push(link),
                Err(full) => break full,
            }
            assert!(crowd.len() < LINKS, "more than there is room for");
        };
        assert_eq!(crowd.len() + 2, LINKS, "all places are taken");
        for declined in
            [full, stranger(1_000).await.expect_err("no room"), stranger(1_001).await.expect_err("no room")]
        {
            let WsError::Declined { status: 503, body, .. } = declined else { panic!("{declined}") };
            assert!(body.contains("\"code\":\"too_many_links\""), "{body}");
        }
        pong(&mut recorder.link, b"still there?").await;
        pong(&mut uploader.link, b"and you?").await;
        // With all of them there, a recording is made and taken in.
        site.create_task("stays", "amid").await;
        for (action, body, state) in [
            ("config", json!({"task_config": {"task_id": "amid"}}), "ready"),
            ("begin", json!({"task_id": "amid"}), "recording"),
            ("pause", json!({}), "paused"),
            ("resume", json!({}), "recording"),
        ] {
            let (status, answer, _) = recorder.obey(&site, action, &body, state).await;
            assert_eq!((status, &answer["success"]), (200, &json!(true)), "{action}: {answer}");
        }
        site.task_reaches("amid", "in_progress").await;
        let (status, answer) =
            site.post("/api/v1/callbacks/finish", &crate::main_path::finish_callback("stays", "amid")).await;
        assert_eq!((status, &answer["upload_request_sent"]), (200, &json!(true)), "{answer}");
        assert_eq!(
            uploader.text().await,
            "{\"priority\":1,\"task_id\":\"amid\",\"type\":\"upload_request\"}\n"
        );
        let take = Take::new("stays", "amid", 2, 100_000);
        uploader.say("upload_started", &take.started()).await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack("amid").await;
        site.task_reaches("amid", "completed").await;
        recorder.task = None;
        recorder.push_state("idle").await;

        drop(crowd);
        until("the site to be ready again", STEP, async || {
            matches!(site.http().get("/readyz").await, Ok((200, _, _))).then_some(())
        })
        .await;
        until("the crowd to be gone", STEP, async || {
            let links = metric(&site, "tidegate_links{role=\"recorder\"}").await;
            (links == Some(1)).then_some(())
        })
        .await;
        assert_eq!(site.read("/api/v1/devices/stays/connection").await, before, "the links are the same");
        site.create_task("stays", "after").await;
        let config = json!({"task_config": {"task_id": "after"}});
        let (status, answer, _) = recorder.obey(&site, "config", &config, "ready").await;
        assert_eq!(status, 200, "{answer}");
        uploader.deliver(&site, &Take::new("stays", "recorded", 1, 100_000)).await;
        let told = site.log().matches("connections cannot be accepted").count();
        assert!(told <= 1, "it is told once a minute at most, not {told} times");
    });
}

/// Sends a ping and waits until it is answered.
async fn pong(link: &mut Raw, payload: &[u8]) {
    link.send_frame(true, Opcode::Ping, payload).await.expect("an open link");
    until("a pong", STEP, async || {
        let heard = link.next(Duration::from_secs(1)).await.expect("an open link");
        matches!(heard, Some(Incoming::Pong(echo)) if echo == payload).then_some(())
    })
    .await;
}

/// A metric of the site; `None` if there is none, or nobody answers.
pub async fn metric(site: &Site, name: &str) -> Option<u64> {
    let answer = site.http().send(http::Method::GET, "/metrics", &[], None).await.ok()?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
