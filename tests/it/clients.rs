//! What every stock S3 client must be able to do against the embedded endpoint: one suite, run with each client.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Method;
use tidegate_device::Http;
use tidegate_runtime::real::RealNet;

use crate::peers::{installed, open_uploads};
use crate::relay::Relay;
use crate::rig::{Plan, STEP, Site, noise, run, sha256};
use crate::skip;
use crate::stock::{Clients, bucket, gave, ran, write};

/// Thirteen parts of 5 MiB, the last one short.
const LARGE: usize = (64 << 20) + 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Aws,
    Rclone,
    S5cmd,
}

/// One client, a site, and a relay between them.
struct Bench {
    tool: Tool,
    bin: PathBuf,
    dir: tempfile::TempDir,
    relay: Relay,
    site: Site,
}

impl Bench {
    /// `None`, said aloud, if the client is not installed.
    async fn start(tool: Tool) -> Option<Bench> {
        let name = match tool {
            Tool::Aws => "aws",
            Tool::Rclone => "rclone",
            Tool::S5cmd => "s5cmd",
        };
        let Some(bin) = installed(name) else {
            let why = format!("{name} is not installed; run tests/stock/install.sh");
            skip::skip(&format!("clients::{name}"), &why);
            return None;
        };
        let site = Plan::new().start().await;
        let relay = Relay::to(site.s3).await;
        Some(Bench { tool, bin, dir: tempfile::tempdir().expect("a directory"), relay, site })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn url(&self, key: &str) -> String {
        match self.tool {
            Tool::Aws | Tool::S5cmd => format!("s3://{}/{key}", bucket()),
            Tool::Rclone => format!("edge:{}/{key}", bucket()),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let clients = Clients { port: self.relay.port, home: self.dir.path() };
        match self.tool {
            Tool::Aws => clients.aws(&self.bin, arguments),
            Tool::Rclone => clients.rclone(&self.bin, arguments),
            Tool::S5cmd => clients.s5cmd(&self.bin, arguments),
        }
    }

    /// Copies a file up, in parts of 5 MiB where the client lets one say so.
    fn up(&self, file: &str, key: &str) -> Command {
        let url = self.url(key);
        match self.tool {
            Tool::Aws => self.command(&["s3", "cp", "--no-progress", file, &url]),
            Tool::Rclone => {
                self.command(&["copyto", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", file, &url])
            }
            Tool::S5cmd => self.command(&["cp", "--part-size", "5", file, &url]),
        }
    }

    fn down(&self, key: &str, file: &str) -> Command {
        let url = self.url(key);
        match self.tool {
            Tool::Aws => self.command(&["s3", "cp", "--no-progress", &url, file]),
            Tool::Rclone => self.command(&["copyto", &url, file]),
            // In ranges of 5 MiB.
            Tool::S5cmd => self.command(&["cp", "--part-size", "5", &url, file]),
        }
    }

    /// Makes a folder of the bucket hold what a directory holds.
    fn sync_up(&self, dir: &str, prefix: &str) -> Command {
        let url = self.url(prefix);
        match self.tool {
            Tool::Aws => self.command(&["s3", "sync", "--no-progress", "--size-only", dir, &url]),
            Tool::Rclone => self.command(&["sync", dir, &url]),
            Tool::S5cmd => self.command(&["sync", "--size-only", &format!("{dir}/"), &format!("{url}/")]),
        }
    }

    fn sync_down(&self, prefix: &str, dir: &str) -> Command {
        let url = self.url(prefix);
        match self.tool {
            Tool::Aws => self.command(&["s3", "sync", "--no-progress", &url, dir]),
            Tool::Rclone => self.command(&["sync", &url, dir]),
            Tool::S5cmd => self.command(&["sync", &format!("{url}/*"), &format!("{dir}/")]),
        }
    }

    /// One line per object; in pages of 50 where the client lets one say so.
    fn list(&self, prefix: &str) -> Command {
        let url = self.url(prefix);
        match self.tool {
            Tool::Aws => self.command(&["s3", "ls", "--recursive", "--page-size", "50", &format!("{url}/")]),
            Tool::Rclone => {
                self.command(&["lsf", "-R", "--files-only", "--fast-list", "--s3-list-chunk", "50", &url])
            }
            Tool::S5cmd => self.command(&["ls", &format!("{url}/*")]),
        }
    }

    fn remove(&self, key: &str) -> Command {
        let url = self.url(key);
        match self.tool {
            Tool::Aws => self.command(&["s3", "rm", &url]),
            Tool::Rclone => self.command(&["deletefile", &url]),
            Tool::S5cmd => self.command(&["rm", &url]),
        }
    }

    fn remove_all(&self, prefix: &str) -> Command {
        let url = self.url(prefix);
        match self.tool {
            Tool::Aws => self.command(&["s3", "rm", "--recursive", &format!("{url}/")]),
            Tool::Rclone => self.command(&["purge", &url]),
            Tool::S5cmd => self.command(&["rm", &format!("{url}/*")]),
        }
    }

    fn link(&self, key: &str) -> Command {
        let url = self.url(key);
        match self.tool {
            Tool::Aws => self.command(&["s3", "presign", &url]),
            Tool::Rclone => self.command(&["link", "--expire", "1h", &url]),
            Tool::S5cmd => self.command(&["presign", &url]),
        }
    }

    /// Digest of what the client gets of an object.
    async fn fetched(&self, key: &str) -> String {
        let file = self.path("fetched");
        ran(self.down(key, &file)).await;
        let bytes = std::fs::read(&file).expect("what came back");
        std::fs::remove_file(&file).expect("what came back");
        sha256(&bytes)
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.site.edge().list(prefix).await.expect("a listing");
        objects.into_iter().map(|object| object.key).collect()
    }
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod aws {
            $(#[test] fn $name() { super::run(super::$name(super::Tool::Aws)); })*
        }
        mod rclone {
            $(#[test] fn $name() { super::run(super::$name(super::Tool::Rclone)); })*
        }
        mod s5cmd {
            $(#[test] fn $name() { super::run(super::$name(super::Tool::S5cmd)); })*
        }
    };
}

suite!(
    a_large_file_goes_up_in_parts_again_and_otherwise_and_comes_back,
    two_hundred_small_files_of_odd_names_are_synced_both_ways_listed_and_removed,
    a_client_killed_in_mid_upload_leaves_no_object_and_the_next_try_makes_one,
);

async fn a_large_file_goes_up_in_parts_again_and_otherwise_and_comes_back(tool: Tool) {
    let Some(bench) = Bench::start(tool).await else { return };
    let (key, name) = ("large/50 % of ü+&=.bin", "large.bin");
    let edge = bench.site.edge();
    let mut bytes = noise(1, LARGE);
    let file = write(bench.dir.path(), name, &bytes);
    // The same twice, then other bytes of the same length: the last one wins.
    for round in 0..3 {
        if round == 2 {
            bytes[LARGE / 2] ^= 1;
            write(bench.dir.path(), name, &bytes);
        }
        ran(bench.up(&file, key)).await;
        assert_eq!(bench.fetched(key).await, sha256(&bytes), "round {round}");
        assert_eq!(bench.keys("large/").await, [key], "round {round}");
        let head = edge.head(key).await.expect("an answer").expect("it is there");
        assert_eq!(head.len, LARGE as u64);
        let parts = head.etag.rsplit_once('-').and_then(|(_, parts)| parts.parse::<u32>().ok());
        assert!(parts.is_some_and(|parts| parts >= 9), "it went up in parts: {}", head.etag);
    }
    assert_eq!(open_uploads(&edge).await, [], "nothing is left open");

    let (from, len) = ((5 << 20) - 10, 20);
    let range = match tool {
        Tool::Aws => {
            let file = bench.path("range");
            let range = format!("bytes={from}-{}", from + len - 1);
            ran(bench.command(&[
                "s3api",
                "get-object",
                "--bucket",
                &bucket(),
                "--key",
                key,
                "--range",
                &range,
                &file,
            ]))
            .await;
            std::fs::read(&file).expect("the range")
        }
        Tool::Rclone => {
            let (from, len) = (from.to_string(), len.to_string());
            gave(bench.command(&["cat", "--offset", &from, "--count", &len, &bench.url(key)])).await
        }
        // It has no word for a range; its download above was made of ranges.
        Tool::S5cmd => Vec::new(),
    };
    if !matches!(bench.tool, Tool::S5cmd) {
        assert_eq!(range, bytes[from..from + len]);
    }

    // A link holds for whoever has it, and for this object alone.
    let link = ran(bench.link(key)).await;
    let origin = format!("http://127.0.0.1:{}", bench.relay.port);
    let path = link.trim().strip_prefix(&origin).unwrap_or_else(|| panic!("{link} is not at {origin}"));
    let http = Http::new(RealNet, "127.0.0.1", bench.relay.port).with_timeout(STEP);
    let mut answer = http.exchange(plain_get(path, bench.relay.port)).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path}");
    let mut got = Vec::new();
    while let Some(chunk) = answer.chunk().await.expect("the rest") {
        got.extend_from_slice(&chunk);
    }
    assert_eq!(sha256(&got), sha256(&bytes), "by the link");
    let other = path.replacen("large/", "larger/", 1);
    let refused = http.send(Method::GET, &other, &[], None).await.expect("an answer");
    assert_eq!(refused.status, 403, "{other}");

    ran(bench.remove(key)).await;
    assert_eq!(bench.keys("large/").await, Vec::<String>::new());
}

fn plain_get(path: &str, port: u16) -> http::Request<tidegate_device::Body> {
    let request = http::Request::builder().uri(path).header("host", format!("127.0.0.1:{port}"));
    request.body(tidegate_device::full("")).expect("a request")
}

/// Names that must be written in some other way in a URL, in XML or on a command line.
fn odd_name(n: u64) -> String {
    let odd = ["plain", "with space", "ünï-日本", "100%25", "a+b&c=d", "q'uote(1)", "semi;colon", "~tilde!#"];
    format!("{}/{}/{n:03}.bin", n % 4, odd[usize::try_from(n).expect("small") % odd.len()])
}

async fn two_hundred_small_files_of_odd_names_are_synced_both_ways_listed_and_removed(tool: Tool) {
    let Some(bench) = Bench::start(tool).await else { return };
    let files: Vec<(String, Vec<u8>)> =
        (0..200).map(|n| (odd_name(n), noise(n, 100 * usize::try_from(n).expect("small")))).collect();
    let whole: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    for (name, bytes) in &files {
        write(&bench.dir.path().join("up"), name, bytes);
    }
    let (up, down) = (bench.path("up"), bench.path("down"));
    std::fs::create_dir(&down).expect("a directory");
    ran(bench.sync_up(&up, "tree")).await;
    let sent = bench.relay.meter.total();
    let mut expected: Vec<String> = files.iter().map(|(name, _)| format!("tree/{name}")).collect();
    expected.sort();
    assert_eq!(bench.keys("tree/").await, expected);
    ran(bench.sync_up(&up, "tree")).await;
    let again = bench.relay.meter.total() - sent;
    assert!(again < whole / 4, "a second sync has nothing to send: {again} of {whole} bytes");

    let listed = ran(bench.list("tree")).await;
    assert_eq!(listed.lines().count(), files.len(), "{listed}");
    ran(bench.sync_down("tree", &down)).await;
    for (name, bytes) in &files {
        let back =
            std::fs::read(Path::new(&down).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(back, *bytes, "{name}");
    }
    ran(bench.remove_all("tree")).await;
    assert_eq!(bench.keys("tree/").await, Vec::<String>::new());
}

async fn a_client_killed_in_mid_upload_leaves_no_object_and_the_next_try_makes_one(tool: Tool) {
    let Some(bench) = Bench::start(tool).await else { return };
    let key = "killed/recording.bin";
    let bytes = noise(3, LARGE);
    let file = write(bench.dir.path(), "recording.bin", &bytes);
    let middle = 24 << 20;
    bench.relay.meter.stall_at(middle);
    let mut client =
        bench.up(&file, key).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a client");
    bench.relay.meter.reaches(middle).await;
    client.kill().expect("SIGKILL");
    client.wait().expect("the end of a killed client");
    bench.relay.meter.flow();
    bench.relay.meter.settled().await;

    let edge = bench.site.edge();
    assert_eq!(edge.head(key).await.expect("an answer"), None, "half a file is no object");
    let open = open_uploads(&edge).await;
    assert_eq!(open.len(), 1, "what was begun can be seen: {open:?}");
    assert_eq!(open[0].0, key);

    ran(bench.up(&file, key)).await;
    assert_eq!(bench.fetched(key).await, sha256(&bytes));
    assert_eq!(bench.keys("killed/").await, [key], "one object");
    assert_eq!(open_uploads(&edge).await, open, "what the killed client began is still there");
    match tool {
        Tool::Aws => {
            let abort = ["s3api", "abort-multipart-upload", "--bucket", &bucket(), "--key", key];
            ran(bench.command(&[&abort[..], &["--upload-id", &open[0].1]].concat())).await;
        }
        Tool::Rclone => {
            let remote = format!("edge:{}", bucket());
            ran(bench.command(&["backend", "cleanup", &remote, "-o", "max-age=0s"])).await;
        }
        // It has no word for it.
        Tool::S5cmd => edge.multipart_abort(key, &open[0].1).await.expect("aborted"),
    }
    assert_eq!(open_uploads(&edge).await, []);
    assert_eq!(bench.fetched(key).await, sha256(&bytes), "the object is not touched by it");
}
