//! The peers of `upload`: how each is told to send one file with the same parts and the same number of them at once.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::store::{BUCKET, KEY, SECRET};
use super::{PART, PARTS_AT_ONCE};
use crate::environment::{line_of, program};

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Aws,
    S5cmd,
    Rclone,
}

impl Client {
    pub const ALL: [Client; 3] = [Client::Aws, Client::S5cmd, Client::Rclone];

    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            Client::Aws => "aws",
            Client::S5cmd => "s5cmd",
            Client::Rclone => "rclone",
        }
    }

    /// Its name and version for people; `None` if it is not installed.
    pub fn installed(self) -> Option<String> {
        let file = program(self.name())?;
        let word = if self == Client::Aws { "--version" } else { "version" };
        let line = line_of(file, &[word])?;
        let version =
            line.split(' ').find(|word| word.contains(|c: char| c.is_ascii_digit())).unwrap_or(&line);
        Some(match self {
            Client::Aws => version.replace('/', " "),
            Client::S5cmd | Client::Rclone => format!("{} {version}", self.name()),
        })
    }

    /// The command that sends `file` to `key`.
    pub fn command(self, dir: &Path, endpoint: &str, file: &Path, key: &str) -> io::Result<Command> {
        let program = program(self.name()).ok_or_else(|| io::Error::other("not installed"))?;
        let home = dir.join("home");
        fs::create_dir_all(&home)?;
        let mut command = Command::new(program);
        command.env_clear().env("HOME", &home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let mib = PART >> 20;
        let to = format!("s3://{BUCKET}/{key}");
        match self {
            Client::Aws => {
                keys(&mut command);
                command.env("AWS_CONFIG_FILE", aws_config(&home)?);
                command.args(["--endpoint-url", endpoint, "s3", "cp", "--only-show-errors"]);
                command.arg(file).arg(to);
            }
            Client::S5cmd => {
                keys(&mut command);
                command.args(["--endpoint-url", endpoint, "cp", "--part-size", &mib.to_string()]);
                command.args(["--concurrency", &PARTS_AT_ONCE.to_string()]).arg(file).arg(to);
            }
            Client::Rclone => {
                let settings = [
                    ("TYPE", "s3"),
                    ("PROVIDER", "Other"),
                    ("ENDPOINT", endpoint),
                    ("ACCESS_KEY_ID", KEY),
                    ("SECRET_ACCESS_KEY", SECRET),
                    ("REGION", "us-east-1"),
                ];
                for (name, value) in settings {
                    command.env(format!("RCLONE_CONFIG_STORE_{name}"), value);
                }
                command.arg("copyto").arg(file).arg(format!("store:{BUCKET}/{key}"));
                command.arg(flag("config", home.join("rclone.conf")));
                command.arg(format!("--s3-chunk-size={mib}M")).arg(format!("--s3-upload-cutoff={mib}M"));
                command.arg(format!("--s3-upload-concurrency={PARTS_AT_ONCE}")).arg("--s3-no-check-bucket");
            }
        }
        Ok(command)
    }
}

fn keys(command: &mut Command) {
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_REGION", "us-east-1");
}

fn aws_config(home: &Path) -> io::Result<PathBuf> {
    let file = home.join("aws.config");
    let mib = PART >> 20;
    let text = format!(
        "[default]\nregion = us-east-1\ns3 =\n  max_concurrent_requests = {PARTS_AT_ONCE}\n  \
         multipart_threshold = {mib}MB\n  multipart_chunksize = {mib}MB\n"
    );
    fs::write(&file, text)?;
    Ok(file)
}

fn flag(name: &str, value: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}
