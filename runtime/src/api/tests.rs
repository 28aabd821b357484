//! The routes against rows in memory and a driver played by the test.

mod policies;
mod refusals;
mod rows;
mod stream;
mod talk;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tidegate_core::effect::{Notice, RecorderView, Response};
use tidegate_core::id::{Boot, DeviceId};
use tidegate_core::input::Request as Ask;
use tidegate_core::policy::Slot;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{Key, Kind, Row};
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_policies::FiguresReader;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::{
    Access, ApiState, OnPolicies, Parts, Reads, Snapshot, Stage, Summary, Unreadable, Way, Ways, callers,
    newcomers, router,
};
use crate::board::Board;
use crate::feed::{Feed, Window};
use crate::grants::{Grants, Mint};
use crate::inbox::{Inbox, Letter};
use crate::metrics::{DriverStats, Metrics};
use crate::policies::{Loader, Watched};
use crate::real::RealSeams;
use crate::seam::Seams;

/// 2026-11-21T00:00:00.500Z
const NOW: Wall = Wall(1_795_219_200_500);

#[derive(Clone, Default)]
struct FakeReads(Arc<BTreeMap<Key, Row>>);

impl Reads for FakeReads {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Unreadable> {
        Ok(Box::new(self.clone()))
    }
}

impl Snapshot for FakeReads {
    fn decisions(&self, _: Slot, _: usize) -> Result<Vec<Vec<u8>>, Unreadable> {
        Ok(Vec::new())
    }

    fn get(&self, key: &Key) -> Result<Option<Row>, Unreadable> {
        Ok(self.0.get(key).cloned())
    }

    fn walk(
        &self,
        kind: Kind,
        reverse: bool,
        each: &mut dyn FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let mut of_kind: Vec<_> = self.0.iter().filter(|(key, _)| key.kind() == kind).collect();
        if reverse {
            of_kind.reverse();
        }
        for (key, row) in of_kind {
            if each(key.clone(), row.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

type Heard = Arc<Mutex<Vec<(Ask, Option<String>)>>>;

/// A site under test: its routes, what its driver heard, and what its viewers were told.
struct Site {
    routes: Router,
    heard: Heard,
    board: Board,
    feed: Feed,
    stage: watch::Sender<Stage>,
}

/// A site whose driver answers everything with `answer`; `None` is a driver that is gone.
fn site(rows: Vec<(Key, Row)>, answer: Option<Result<Response, Refusal>>) -> Site {
    let (inbox, mut letters) = Inbox::new();
    let site = routes_over(rows, inbox);
    if let Some(answer) = answer {
        let heard = site.heard.clone();
        tokio::spawn(async move {
            while let Some(letter) = letters.recv().await {
                let Letter::Request { request, secret, answer: to, .. } = letter else { panic!("a request") };
                let value = secret.map(|secret| secret.value);
                heard.lock().expect("whole").push((request, value));
                let _ = to.send(answer.clone());
            }
        });
    }
    site
}

/// A site without rows whose driver is the test itself.
fn driven_by_hand() -> (Site, mpsc::Receiver<Letter>) {
    let (inbox, letters) = Inbox::new();
    (routes_over(Vec::new(), inbox), letters)
}

fn routes_over(rows: Vec<(Key, Row)>, inbox: Inbox) -> Site {
    routes_with(rows, inbox, Loader::native())
}

fn routes_with(rows: Vec<(Key, Row)>, inbox: Inbox, loader: Loader) -> Site {
    let board = Board::new();
    let feed = Feed::new(Boot(7), board.clone(), Window::default());
    let (stage, staged) = watch::channel(Stage::Serving);
    let state = ApiState::new(Parts {
        inbox,
        reads: Arc::new(FakeReads(Arc::new(rows.into_iter().collect()))),
        runner: Arc::new(|job| Box::pin(async move { job() })),
        board: board.clone(),
        feed: feed.clone(),
        summary: Summary {
            site: "north".to_owned(),
            public_url: None,
            worker_running: true,
            auto_scan_enabled: false,
            max_retries: 5,
            rpc_timeout: Duration::from_secs(15),
            uploading_deadline: Some(Duration::from_secs(86_400)),
            policy_bytes_max: 256 << 10,
            ways: Ways {
                recorder_url: None,
                transfer_url: None,
                public_url: None,
                api: Way { port: 8080, tls: false },
                recorder: None,
                transfer: None,
            },
        },
        metrics: Metrics::new(board.clone(), Arc::new(DriverStats::default)),
        policies: OnPolicies { loader, figures: FiguresReader::default(), watched: Watched::default() },
        access: Access {
            grants: Grants::default(),
            mint: Mint::new(*RealSeams::new().blocking()),
            demanded: false,
            callback_tokens: false,
            open_registration: true,
        },
        clock: Arc::new(|| Now { wall: NOW, mono: Mono(0) }),
        stage: staged,
        callers: callers(),
        newcomers: newcomers(),
    });
    Site { routes: router(state, Router::new()), heard: Heard::default(), board, feed, stage }
}

impl Site {
    async fn raw(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(body.into()).expect("a legal request");
        let response = self.routes.clone().oneshot(request).await.expect("routes do not fail");
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body in memory");
        (status, String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let (status, text) = self.raw(method, path, body).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: no JSON: {text}")))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.call(Method::POST, path, body.to_owned()).await
    }

    fn heard(&self) -> Vec<(Ask, Option<String>)> {
        std::mem::take(&mut *self.heard.lock().expect("whole"))
    }

    fn told(&self, notice: &Notice) {
        self.board.apply(NOW, notice);
    }
}

fn device() -> DeviceId {
    DeviceId::new("r1").expect("legal")
}

fn view() -> RecorderView {
    RecorderView {
        device: device(),
        connected: true,
        state: "ready".to_owned(),
        previous: "idle".to_owned(),
        task: "t1".to_owned(),
        updated_at: Wall(NOW.0 - 1500),
        synced: true,
        fresh: true,
        source: "state_update".to_owned(),
        confidence: "confirmed",
        generation: 3,
        version: 8,
        age_ms: 20,
        error: None,
        asked_at: None,
        raw: None,
    }
}
