//! `tidegate sync --watch`: follows uploads to their ends, whatever those are, and leaves them alone when it ends first.

use std::process::{Child, Command, Output, Stdio};

use crate::cloud::Cloud;
use crate::rig::{Plan, STEP, Site, run, until};
use crate::script::{Take, Uploader};

/// A running `tidegate sync`.
fn begin(site: &Site, arguments: &[&str]) -> Child {
    let mut command: Command = Site::program();
    command.arg("sync").args(arguments).args(["--api", &format!("http://127.0.0.1:{}", site.api)]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary under test starts")
}

async fn ended(child: Child) -> (Option<i32>, String) {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output: Output =
        tokio::time::timeout(STEP, waiting).await.expect("it ends").expect("it runs").expect("its output");
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code(), text)
}

async fn approved(site: &Site, uploader: &mut Uploader, task: &str, len: usize) -> u64 {
    let take = Take::new("robot-1", task, len as u64, len);
    let episode = uploader.deliver(site, &take).await;
    let (status, body) =
        site.post(&format!("/api/v1/episodes/{episode}/approve"), &serde_json::json!({})).await;
    assert_eq!(status, 200, "{body}");
    episode
}

#[test]
fn watching_ends_with_zero_when_everything_is_in_the_cloud() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let one = approved(&site, &mut uploader, "watched-1", 11 << 20).await;
        cloud.watcher.hold("UploadPart", 1);
        let first = begin(&site, &[&one.to_string(), "--watch"]);
        cloud.watcher.held(1).await;
        // It is on its way: a second watcher of the same episode queues nothing and is no error.
        let second = begin(&site, &[&one.to_string(), "--watch"]);
        let two = approved(&site, &mut uploader, "watched-2", 1_000).await;
        let all = begin(&site, &["--all", "--watch"]);
        site.synced(two).await;
        cloud.watcher.release();
        for (child, count) in [(first, 1), (second, 1)] {
            let (code, text) = ended(child).await;
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains(&format!("{count} of {count} in the cloud")), "{text}");
            assert!(text.contains(&format!("episode {one}")), "{text}");
        }
        let (code, text) = ended(all).await;
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("1 episode is queued") && text.contains("in the cloud"), "{text}");
        let (code, text) = ended(begin(&site, &["--watch"])).await;
        assert_eq!((code, text.trim()), (Some(0), "nothing is on its way"));
        let (code, text) = ended(begin(&site, &[&one.to_string(), "--watch"])).await;
        assert_eq!(code, Some(0), "in the cloud already: {text}");
    });
}

#[test]
fn watching_ends_with_one_and_says_why_when_an_upload_waits_for_a_person() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let episode = approved(&site, &mut uploader, "homeless", 1_000).await;
        let (code, text) = ended(begin(&site, &["--all", "--watch"])).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&format!("episode {episode}: parked: no_destination")), "{text}");
        let (code, text) = ended(begin(&site, &["4711", "--watch"])).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("episode not found"), "{text}");
    });
}

#[test]
fn ctrl_c_ends_the_watching_and_not_the_upload() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let episode = approved(&site, &mut uploader, "left-alone", 11 << 20).await;
        cloud.watcher.hold("UploadPart", 1);
        let child = begin(&site, &[&episode.to_string(), "--watch"]);
        cloud.watcher.held(1).await;
        // A site that is started again is waited for.
        site.kill();
        // All parts may be in the store by now, answered or not.
        cloud.watcher.hold("CompleteMultipartUpload", 0);
        site.start().await;
        cloud.watcher.held(1).await;
        let process = child.id();
        let watching = tokio::spawn(ended(child));
        until("the watcher to end", STEP, async || {
            // Repeated: before its first look it does not listen for the signal, and ends by it like any program.
            // It may be over before the signal leaves, and then there is nobody to tell.
            if !watching.is_finished() {
                let mut kill = Command::new("kill");
                let _ = kill.args(["-INT", &process.to_string()]).stderr(Stdio::null()).status();
            }
            watching.is_finished().then_some(())
        })
        .await;
        let (code, text) = watching.await.expect("its end");
        assert_eq!(code, Some(130), "{text}");
        assert!(text.contains("go on by themselves"), "{text}");
        cloud.watcher.release();
        site.synced(episode).await;
    });
}
