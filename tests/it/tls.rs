//! TLS over the real binary: an API that speaks it beside plain listeners for devices, and what refuses to start.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tidegate_device::{Device, DeviceConfig, DeviceEvent, Http, Incoming, RawLink, RecordPlan};
use tidegate_runtime::real::{RealNet, RealSeams};
use tidegate_runtime::tls::{Roots, TlsNet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::cli::{output, text};
use crate::rig::{Plan, STEP, Site, free_port, run, until};

/// A certificate that vouches for itself, and its key, both PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Pair {
    fn new() -> Pair {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
        };
        Pair { cert: pem("CERTIFICATE", cert.der()), key: pem("PRIVATE KEY", &signing_key.serialize_der()) }
    }

    fn write(&self, site: &Site) {
        std::fs::write(site.dir().join("cert.pem"), &self.cert).expect("a file");
        std::fs::write(site.dir().join("key.pem"), &self.key).expect("a file");
    }

    /// A network that trusts this certificate alone.
    fn net(&self) -> TlsNet<RealNet> {
        TlsNet::encrypted(RealNet, Roots::from_pem(self.cert.as_bytes()).expect("a certificate"))
    }
}

/// A plan whose files are named from the directory that the site starts in.
fn plan() -> Plan {
    Plan::new().set("listen.tls_cert", "cert.pem").set("listen.tls_key", "key.pem")
}

/// A running site whose API speaks TLS, and a client of it.
async fn start(plan: Plan) -> (Site, Pair, Http<TlsNet<RealNet>>) {
    let pair = Pair::new();
    let mut site = plan.prepare();
    pair.write(&site);
    site.spawn();
    let http = Http::new(pair.net(), "127.0.0.1", site.api).with_timeout(STEP);
    until("the site to be ready", STEP, async || {
        assert!(!site.has_ended(), "the site ended at its start");
        matches!(http.get("/readyz").await, Ok((200, _, _))).then_some(())
    })
    .await;
    (site, pair, http)
}

async fn done(http: &Http<TlsNet<RealNet>>, path: &str, body: &Value) {
    until(&format!("POST {path}"), STEP, async || {
        let (status, _, answer) = http.post(path, body).await.expect("an answer");
        assert!(matches!(status, 200 | 201 | 404 | 409), "{path}: {status} {answer}");
        (status == 201 || status == 200 && answer["success"] != false).then_some(())
    })
    .await;
}

async fn reaches(http: &Http<TlsNet<RealNet>>, task: &str, status: &str) {
    until(&format!("task {task} to be {status}"), STEP, async || {
        let (_, _, body) = http.get(&format!("/api/v1/tasks/{task}")).await.expect("an answer");
        (body["status"] == status).then_some(())
    })
    .await;
}

#[test]
fn a_device_on_plain_listeners_records_to_the_acknowledgement_while_the_api_speaks_tls() {
    run(async {
        let (recorder, transfer) = (free_port(), free_port());
        let plan = plan()
            .set("listen.recorder", format!("127.0.0.1:{recorder}"))
            .set("listen.transfer", format!("127.0.0.1:{transfer}"))
            .set("public_url", format!("http://127.0.0.1:{recorder}"));
        let (site, _pair, http) = start(plan).await;
        let mut config = DeviceConfig::new(
            "robot-1",
            format!("ws://127.0.0.1:{recorder}/recorder/robot-1"),
            format!("ws://127.0.0.1:{transfer}/transfer"),
            site.dir().join("device"),
            site.edge_config(),
        );
        config.record = RecordPlan {
            target_bytes: 300_000,
            step_every: Duration::from_millis(10),
            ..RecordPlan::default()
        };
        let device = Device::spawn(RealSeams::new(), config).expect("addresses that can be read");
        device.connected(STEP).await.expect("both links");

        done(&http, "/api/v1/tasks", &json!({"task_id": "take-1", "device_id": "robot-1"})).await;
        let task =
            json!({"task_config": {"task_id": "take-1", "device_id": "robot-1", "topics": ["/imu/data"]}});
        done(&http, "/api/v1/recorder/robot-1/config", &task).await;
        done(&http, "/api/v1/recorder/robot-1/begin", &json!({"task_id": "take-1"})).await;
        reaches(&http, "take-1", "in_progress").await;
        done(&http, "/api/v1/recorder/robot-1/finish", &json!({})).await;
        let acknowledged = |events: &[DeviceEvent]| {
            let gone = |event: &DeviceEvent| matches!(event, DeviceEvent::FileDeleted { path } if path.ends_with("take-1.mcap"));
            events.iter().any(gone).then_some(())
        };
        device.wait_for("an acknowledgement", STEP, acknowledged).await.expect("it comes");
        reaches(&http, "take-1", "completed").await;
        let called: Vec<Option<u16>> = device
            .log()
            .all()
            .into_iter()
            .filter_map(|event| match event {
                DeviceEvent::Callback { status, .. } => Some(status),
                _ => None,
            })
            .collect();
        assert_eq!(called, [Some(200), Some(200)], "both callbacks reached the listener of recorders");

        // What is for operators stays with the API.
        let plain = Http::new(RealNet, "127.0.0.1", recorder).with_timeout(STEP);
        for path in ["/api/v1/tasks", "/metrics", "/transfer/robot-1"] {
            let (status, _, body) = plain.get(path).await.expect("an answer");
            assert_eq!((status, &body["code"]), (404, &json!("not_found")), "{path}");
        }
        device.stop(Duration::from_secs(5)).await;
    });
}

#[test]
fn a_link_may_come_over_tls_too() {
    run(async {
        let (site, pair, http) = start(plan()).await;
        let link = RawLink::dial(&pair.net(), "127.0.0.1", site.api, "/recorder/robot-1", &[]).await;
        let mut link = link.expect("a link");
        let first = link.next(STEP).await.expect("an open link");
        assert!(matches!(&first, Some(Incoming::Text(text)) if text.contains("\"get_state\"")), "{first:?}");
        let (_, _, body) = http.get("/api/v1/recorder/devices").await.expect("an answer");
        assert_eq!(body["devices"][0]["device_id"], "robot-1", "{body}");
    });
}

#[test]
fn what_is_no_handshake_is_closed_and_holds_nobody_up() {
    run(async {
        let (site, _pair, http) = start(plan()).await;
        let dial = async || TcpStream::connect(("127.0.0.1", site.api)).await.expect("a connection");
        let mut silent = dial().await;
        // The first bytes of a client that greets and never goes on.
        let mut half = dial().await;
        half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.expect("sent");
        let mut plain = dial().await;
        plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        for stream in [&mut plain, &mut half, &mut silent] {
            let mut said = Vec::new();
            let ended = tokio::time::timeout(STEP, stream.read_to_end(&mut said)).await;
            // A reset is an end as well.
            drop(ended.expect("it is closed"));
            assert!(!said.starts_with(b"HTTP"), "{said:?}");
        }
        assert!(matches!(http.get("/healthz").await, Ok((200, _, _))));
    });
}

#[test]
fn the_endpoint_for_recordings_speaks_tls_if_it_is_named() {
    run(async {
        let (site, pair, _http) = start(plan().set("listen.tls", "api,s3")).await;
        let s3 = Http::new(pair.net(), "127.0.0.1", site.s3).with_timeout(STEP);
        let (status, _, _) = s3.get("/").await.expect("an answer over TLS");
        assert_eq!(status, 403, "it asks for a signature");
        assert!(Http::new(RealNet, "127.0.0.1", site.s3).get("/").await.is_err(), "nothing without TLS");
    });
}

#[test]
fn the_commands_reach_a_site_over_tls_and_say_why_if_they_do_not() {
    run(async {
        let recorder = free_port();
        let (site, _pair, _http) =
            start(plan().set("listen.recorder", format!("127.0.0.1:{recorder}"))).await;
        std::fs::write(site.dir().join("other.pem"), Pair::new().cert).expect("a file");
        let status = async |arguments: &[&str]| {
            let mut command = Site::program();
            command.arg("status").args(arguments).current_dir(site.dir());
            let output = output(command).await;
            (output.status.code(), text(&output))
        };
        let https = format!("https://127.0.0.1:{}", site.api);
        let (code, said) = status(&["--api", &https, "--ca", "cert.pem"]).await;
        assert_eq!(code, Some(0), "{said}");
        let log = site.log();
        assert!(log.contains(&format!("site is up: {https}")), "{log}");
        let plain = format!("https://127.0.0.1:{recorder}");
        let http = format!("http://127.0.0.1:{}", site.api);
        let cases: [(&[&str], i32, &str); 6] = [
            (&["--api", &https, "--ca", "other.pem"], 1, "cannot prove who it is"),
            (&["--api", &https, "--ca", "other.pem"], 1, "--ca FILE"),
            (&["--api", &plain, "--ca", "cert.pem"], 1, "does not speak TLS"),
            (&["--api", &http], 1, "use https://"),
            (&["--api", &https, "--ca", "absent.pem"], 2, "--ca absent.pem cannot be read"),
            (&["--api", &https, "--ca", "key.pem"], 2, "--ca key.pem: it holds no certificate"),
        ];
        for (arguments, exit, part) in cases {
            let (code, said) = status(arguments).await;
            assert!(code == Some(exit) && said.contains(part), "{arguments:?} ends with {code:?}: {said}");
        }
    });
}

#[test]
fn a_token_goes_into_the_header_and_nowhere_else() {
    const TOKEN: &str = "tgo_v1_hidden";
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let (heads, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                heads.send(String::from_utf8(head).expect("text")).expect("the test listens");
                let answer = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                stream.write_all(answer).await.expect("sent");
            }
        });
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).expect("a file");
        let api = format!("http://127.0.0.1:{port}");
        let ways: [(&[&str], Option<&str>); 4] = [
            (&["--token", TOKEN], None),
            (&[], Some(TOKEN)),
            (&["--token-file", "token"], Some("another")),
            (&[], None),
        ];
        for (arguments, variable) in ways {
            let mut command = Site::program();
            command.args(["sync", "--all", "--api", &api]).args(arguments).current_dir(dir.path());
            command.envs(variable.map(|token| ("TIDEGATE_TOKEN", token)));
            let output = output(command).await;
            let said = text(&output);
            let head = heard.recv().await.expect("a request");
            let given = !arguments.is_empty() || variable.is_some();
            let line = format!("authorization: bearer {TOKEN}\r\n");
            assert_eq!(head.to_lowercase().contains(&line), given, "{arguments:?}: {head}");
            let part = if given { "does not take this token" } else { "asks for a token" };
            assert!(output.status.code() == Some(1) && said.contains(part), "{arguments:?}: {said}");
            assert!(!said.contains("hidden"), "it shows the token: {said}");
        }
        for arguments in [["--token", "two words hidden"], ["--token-file", "absent"], ["--token", ""]] {
            let mut command = Site::program();
            command.args(["sync", "--all", "--api", &api]).args(arguments).current_dir(dir.path());
            let output = output(command).await;
            let said = text(&output);
            assert!(output.status.code() == Some(2) && said.contains("--token"), "{arguments:?}: {said}");
            assert!(!said.contains("hidden"), "it shows the token: {said}");
        }
        assert!(heard.try_recv().is_err(), "nothing is sent without a token that makes sense");
    });
}

#[test]
fn a_pair_that_cannot_be_used_refuses_to_start_and_names_the_setting() {
    run(async {
        let refused = async |plan: Plan, files: &[(&str, &str)], parts: &[&str]| {
            let site = plan.prepare();
            for (name, content) in files {
                std::fs::write(site.dir().join(name), content).expect("a file");
            }
            let output = output(site.command()).await;
            let said = text(&output);
            assert_eq!(output.status.code(), Some(3), "{said}");
            for part in parts {
                assert!(said.contains(part), "{part} is missing: {said}");
            }
            assert!(!site.data_dir().exists(), "nothing was made");
        };
        let (pair, other) = (Pair::new(), Pair::new());
        let half = Plan::new().set("listen.tls_cert", "cert.pem");
        refused(half, &[("cert.pem", &pair.cert)], &["listen.tls_key must be"]).await;
        refused(plan(), &[("key.pem", &pair.key)], &["listen.tls_cert: cert.pem cannot be read"]).await;
        refused(plan(), &[("cert.pem", &pair.cert)], &["listen.tls_key: key.pem cannot be read"]).await;
        let unfit = [("cert.pem", pair.cert.as_str()), ("key.pem", other.key.as_str())];
        refused(plan(), &unfit, &["listen.tls_key: key.pem is not the key of the certificate", "cert.pem"])
            .await;
        let swapped = [("cert.pem", pair.key.as_str()), ("key.pem", pair.cert.as_str())];
        refused(plan(), &swapped, &["listen.tls_cert: cert.pem: it holds no certificate"]).await;
        let named = plan().set("listen.tls", "api,transfer");
        let both = [("cert.pem", pair.cert.as_str()), ("key.pem", pair.key.as_str())];
        refused(named, &both, &["listen.tls names transfer, but listen.transfer is not set"]).await;
    });
}
