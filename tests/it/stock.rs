//! Stock S3 clients against the embedded endpoint: their command lines, and what one of them alone can do. Installed by
//! tests/stock/install.sh; skipped where they are not.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::peers::{bare, installed};
use crate::rig::{EDGE_KEY, EDGE_SECRET, Plan, SITE, noise, run};
use crate::skip;

/// Runs a client to its end; what it printed.
pub async fn ran(command: Command) -> String {
    String::from_utf8_lossy(&gave(command).await).into_owned()
}

/// Runs a client to its end; the bytes that it gave.
pub async fn gave(command: Command) -> Vec<u8> {
    let shown = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{shown} does not end")).expect("the client starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {}\n{text}\n{errors}", output.status);
    output.stdout
}

/// Command lines against an edge bucket.
pub struct Clients<'a> {
    /// Where its endpoint listens.
    pub port: u16,
    /// A directory of the test, for what a client keeps at home.
    pub home: &'a Path,
}

impl Clients<'_> {
    /// `aws` with these arguments.
    pub fn aws(&self, bin: &Path, arguments: &[&str]) -> Command {
        let mut command = bare(bin);
        command
            .env("HOME", self.home)
            .env("AWS_CONFIG_FILE", self.home.join("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.home.join("none"))
            .env("AWS_ACCESS_KEY_ID", EDGE_KEY)
            .env("AWS_SECRET_ACCESS_KEY", EDGE_SECRET)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_MAX_ATTEMPTS", "1")
            .arg("--endpoint-url")
            .arg(format!("http://127.0.0.1:{}", self.port))
            .args(arguments);
        command
    }

    /// `rclone` with these arguments; the bucket is below `edge:`.
    pub fn rclone(&self, bin: &Path, arguments: &[&str]) -> Command {
        let mut command = bare(bin);
        command
            .env("HOME", self.home)
            .env("RCLONE_CONFIG", self.home.join("none.conf"))
            .env("RCLONE_CONFIG_EDGE_TYPE", "s3")
            .env("RCLONE_CONFIG_EDGE_PROVIDER", "Other")
            .env("RCLONE_CONFIG_EDGE_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("RCLONE_CONFIG_EDGE_ACCESS_KEY_ID", EDGE_KEY)
            .env("RCLONE_CONFIG_EDGE_SECRET_ACCESS_KEY", EDGE_SECRET)
            .env("RCLONE_CONFIG_EDGE_REGION", "us-east-1")
            .args(["--retries", "1", "--low-level-retries", "1"])
            .args(arguments);
        command
    }

    /// `s5cmd` with these arguments.
    pub fn s5cmd(&self, bin: &Path, arguments: &[&str]) -> Command {
        let mut command = bare(bin);
        command
            .env("HOME", self.home)
            .env("AWS_ACCESS_KEY_ID", EDGE_KEY)
            .env("AWS_SECRET_ACCESS_KEY", EDGE_SECRET)
            .env("AWS_REGION", "us-east-1")
            .arg("--endpoint-url")
            .arg(format!("http://127.0.0.1:{}", self.port))
            .args(["--retry-count", "0"])
            .args(arguments);
        command
    }
}

/// Writes a file below a directory; its path.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(&path, bytes).expect("a file");
    path.display().to_string()
}

/// The edge bucket.
pub fn bucket() -> String {
    format!("edge-{SITE}")
}

#[test]
fn aws_copies_up_and_down_lists_ranges_and_removes() {
    let Some(aws) = installed("aws") else {
        return skip::skip("stock::aws", "aws is not installed; run tests/stock/install.sh");
    };
    run(async {
        let site = Plan::new().start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let clients = Clients { port: site.s3, home: dir.path() };
        let bucket = bucket();
        let small = noise(1, 1024);
        let large = noise(2, 20 << 20);
        for (name, bytes) in [("small.bin", &small), ("large file (ü).bin", &large)] {
            let up = write(dir.path(), name, bytes);
            let down = dir.path().join(format!("down-{}", bytes.len())).display().to_string();
            let url = format!("s3://{bucket}/stock/{name}");
            ran(clients.aws(&aws, &["s3", "cp", "--no-progress", &up, &url])).await;
            ran(clients.aws(&aws, &["s3", "cp", "--no-progress", &url, &down])).await;
            assert_eq!(std::fs::read(&down).expect("what came back"), *bytes, "{name} comes back as it went");
        }
        let head = ran(clients.aws(
            &aws,
            &[
                "s3api",
                "head-object",
                "--bucket",
                &bucket,
                "--key",
                "stock/large file (ü).bin",
                "--output",
                "json",
            ],
        ))
        .await;
        let head: serde_json::Value = serde_json::from_str(&head).expect("JSON");
        assert_eq!(head["ContentLength"], large.len(), "{head}");
        let etag = head["ETag"].as_str().unwrap_or("");
        assert!(etag.trim_matches('"').ends_with("-3"), "20 MiB went up in three parts of 8 MiB: {head}");

        let part = dir.path().join("range").display().to_string();
        let (from, to) = (8 * 1024 * 1024 - 10, 8 * 1024 * 1024 + 9);
        let range = format!("bytes={from}-{to}");
        let key = ["--bucket", &bucket, "--key", "stock/large file (ü).bin", "--range"];
        let mut arguments = vec!["s3api", "get-object"];
        arguments.extend(key);
        arguments.extend([range.as_str(), part.as_str()]);
        ran(clients.aws(&aws, &arguments)).await;
        assert_eq!(std::fs::read(&part).expect("the range"), large[from..=to]);
        let mut arguments = vec!["s3api", "get-object"];
        arguments.extend(key);
        arguments.extend(["bytes=-7", part.as_str()]);
        ran(clients.aws(&aws, &arguments)).await;
        assert_eq!(std::fs::read(&part).expect("the end"), large[large.len() - 7..]);

        let uploads =
            ran(clients
                .aws(&aws, &["s3api", "list-multipart-uploads", "--bucket", &bucket, "--output", "json"]))
            .await;
        assert!(!uploads.contains("UploadId"), "nothing is left open: {uploads}");
        let listed =
            ran(clients.aws(&aws, &["s3", "ls", "--recursive", &format!("s3://{bucket}/stock/")])).await;
        assert_eq!(listed.lines().count(), 2, "{listed}");
        ran(clients.aws(&aws, &["s3", "rm", "--recursive", &format!("s3://{bucket}/stock/")])).await;
        let count =
            ["s3api", "list-objects-v2", "--bucket", &bucket, "--prefix", "stock/", "--output", "json"];
        let listed = ran(clients.aws(&aws, &count)).await;
        assert!(!listed.contains("\"Key\""), "{listed}");
    });
}

#[test]
fn aws_syncs_a_tree_of_small_files_both_ways() {
    let Some(aws) = installed("aws") else {
        return skip::skip("stock::aws", "aws is not installed; run tests/stock/install.sh");
    };
    run(async {
        let site = Plan::new().start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let clients = Clients { port: site.s3, home: dir.path() };
        let tree: Vec<(String, Vec<u8>)> = (0..30)
            .map(|n| (format!("tree/{}/file-{n:02} +&=.bin", n % 4), noise(n, 100 * n as usize)))
            .collect();
        for (name, bytes) in &tree {
            write(dir.path(), name, bytes);
        }
        let url = format!("s3://{}/tree", bucket());
        let (up, down) =
            (dir.path().join("tree").display().to_string(), dir.path().join("back").display().to_string());
        ran(clients.aws(&aws, &["s3", "sync", "--no-progress", &up, &url])).await;
        ran(clients.aws(&aws, &["s3", "sync", "--no-progress", &url, &down])).await;
        for (name, bytes) in &tree {
            let back = dir.path().join(name.replacen("tree", "back", 1));
            assert_eq!(std::fs::read(&back).expect("what came back"), *bytes, "{name}");
        }
        let again = ran(clients.aws(&aws, &["s3", "sync", "--no-progress", "--size-only", &up, &url])).await;
        assert_eq!(again.trim(), "", "a second sync has nothing to do");
    });
}

#[test]
fn rclone_copies_up_and_down_in_parts_and_its_check_is_content() {
    let Some(rclone) = installed("rclone") else {
        return skip::skip("stock::rclone", "rclone is not installed; run tests/stock/install.sh");
    };
    run(async {
        let site = Plan::new().start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let clients = Clients { port: site.s3, home: dir.path() };
        let tree = [
            ("up/one.bin", noise(1, 1024)),
            ("up/nested/deep er/two.bin", noise(2, 17 << 20)),
            ("up/empty.bin", Vec::new()),
            ("up/nested/ünïcode.bin", noise(3, 77_777)),
        ];
        for (name, bytes) in &tree {
            write(dir.path(), name, bytes);
        }
        let (up, down) =
            (dir.path().join("up").display().to_string(), dir.path().join("down").display().to_string());
        let remote = format!("edge:{}/rclone", bucket());
        let parts = ["--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M"];
        let mut arguments = vec!["copy", up.as_str(), remote.as_str()];
        arguments.extend(parts);
        ran(clients.rclone(&rclone, &arguments)).await;
        ran(clients.rclone(&rclone, &["check", &up, &remote])).await;
        ran(clients.rclone(&rclone, &["check", "--download", &up, &remote])).await;
        ran(clients.rclone(&rclone, &["copy", &remote, &down])).await;
        for (name, bytes) in &tree {
            let back = dir.path().join(name.replacen("up", "down", 1));
            assert_eq!(std::fs::read(&back).expect("what came back"), *bytes, "{name}");
        }
        ran(clients.rclone(&rclone, &["purge", &remote])).await;
        let listed = ran(clients.rclone(&rclone, &["lsf", "-R", &format!("edge:{}", bucket())])).await;
        assert!(!listed.contains("one.bin"), "{listed}");
    });
}
