//! Listeners that other machines reach: refused without proof or consent, each by itself, and asking for tokens otherwise.

use http::Method;
use tidegate_device::WsError;
use tidegate_runtime::real::RealNet;

use crate::cli::{output, text};
use crate::rig::{Plan, Raw, free_port, run};
use crate::skip;

#[test]
fn a_listener_that_others_reach_and_that_asks_for_nothing_refuses_the_start() {
    run(async {
        for (listener, off) in [
            ("listen.api", "auth.api"),
            ("listen.api", "auth.devices"),
            ("listen.api", "auth.callbacks"),
            ("listen.recorder", "auth.devices"),
            ("listen.recorder", "auth.callbacks"),
            ("listen.transfer", "auth.devices"),
            ("listen.transfer", "auth.callbacks"),
        ] {
            for host in ["0.0.0.0", "[::]", "192.0.2.7"] {
                let address = format!("{host}:{}", free_port());
                let site = Plan::new().set(listener, address).set(off, "off").prepare();
                let refused = output(site.command()).await;
                let said = text(&refused);
                assert_eq!(refused.status.code(), Some(3), "{listener} at {host}: {said}");
                for part in [off, "--insecure"] {
                    assert!(said.contains(part), "{listener} at {host} without {part}: {said}");
                }
                if off != "auth.callbacks" {
                    assert!(said.contains(listener), "{listener} at {host}: {said}");
                }
                assert!(!site.data_dir().join("tidegate.redb").exists(), "nothing was opened");
            }
        }
    });
}

#[test]
fn every_listener_may_be_reached_by_others_as_long_as_it_asks_who_they_are() {
    run(async {
        for host in ["0.0.0.0", "[::]"] {
            if let Err(error) = std::net::TcpListener::bind(format!("{host}:0")) {
                skip::cannot_be_had("every_listener_may_be_reached_by_others", &format!("{host}: {error}"));
                continue;
            }
            let (api, recorder, transfer) = (free_port(), free_port(), free_port());
            let s3 = free_port();
            let at = |port: u16| format!("{host}:{port}");
            let plan = Plan::new()
                .set("listen.api", at(api))
                .set("listen.s3", at(s3))
                .set("listen.recorder", at(recorder))
                .set("listen.transfer", at(transfer));
            let mut site = plan.prepare();
            (site.api, site.s3) = (api, s3);
            site.start().await;
            let tasks = site.send(Method::GET, "/api/v1/tasks").await;
            assert_eq!(tasks.status.as_u16(), 401, "{host}");
            for (port, path) in [
                (api, "/recorder/robot-1"),
                (api, "/transfer/robot-1"),
                (recorder, "/recorder/robot-1"),
                (transfer, "/transfer/robot-1"),
            ] {
                match Raw::dial(&RealNet, "127.0.0.1", port, path, &[]).await {
                    Err(WsError::Declined { status: 401, .. }) => {}
                    Err(error) => panic!("{path} at {host}:{port}: {error}"),
                    Ok(_) => panic!("{path} at {host}:{port}: a stranger was let in"),
                }
            }
            let http = tidegate_device::Http::new(RealNet, "127.0.0.1", s3);
            let list = http.send(Method::GET, "/", &[], None).await.expect("an answer");
            assert_eq!(list.status.as_u16(), 403, "{host}: the S3 endpoint wants a signature");
            let log = site.log();
            let warned = log.lines().find(|line| line.contains("tokens are asked for beyond this machine"));
            let warned = warned.unwrap_or_else(|| panic!("{host}: tokens in the clear: {log}"));
            assert!(warned.contains("(listen.api, listen.recorder, listen.transfer)"), "{warned}");
            site.stop().await;
        }
    });
}

#[test]
fn who_says_that_it_may_be_insecure_gets_no_questions_and_no_refusal() {
    run(async {
        let (api, recorder) = (free_port(), free_port());
        let plan = Plan::new()
            .set("listen.api", format!("0.0.0.0:{api}"))
            .set("listen.recorder", format!("0.0.0.0:{recorder}"))
            .argument("--insecure");
        let mut site = plan.prepare();
        site.api = api;
        site.start().await;
        assert_eq!(site.get("/api/v1/tasks").await.0, 200);
        let link = Raw::dial(&RealNet, "127.0.0.1", recorder, "/recorder/robot-1", &[]).await;
        assert!(link.is_ok(), "nobody has to prove anything");
        assert!(!site.log().contains("tokens are asked for"), "none are: {}", site.log());
        site.stop().await;
    });
}
