//! The command line: what can be said, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use tidegate_runtime::config::Secret;

/// Edge runtime for fleets of recording devices.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    about = "Edge runtime for fleets of recording devices",
    long_about = "One binary per site. Keeps recording devices connected, coordinates their recording tasks, takes \
                  in finished recordings, and carries approved ones to S3 through a durable queue.",
    after_help = "First steps:\n  tidegate demo                 see the whole way on this machine, nothing to install\n  \
                  tidegate run                  start a site in ./tidegate-data on loopback\n  \
                  tidegate status               look at it\n  tidegate sync --all --watch   send every approved episode and watch\n\n\
                  Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 data directory refused."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a site until it is told to stop (SIGTERM or Ctrl-C; a second one ends it at once)
    Run(Run),
    /// Show a running site at a glance: what needs a person, what is on its way, who is connected
    Status(Status),
    /// Send approved episodes of a running site to the cloud, and watch them go
    Sync(Sync),
    /// Follow what happens at a running site, line by line, until Ctrl-C
    Watch(Watch),
    /// Run the main job on this machine: three devices, a site, a cloud, and a kill -9 in between
    Demo(Demo),
    /// Repeat a data directory's journal and compare: same inputs, same changes, same records
    Replay(Replay),
    /// Write, check, try, load and swap the policies that decide when and how recordings go to the cloud
    Policy(crate::policy::args::Policy),
    /// Show, make and take back tokens: of people who use the API, and of devices
    Token(Token),
    /// Show or clear what a stopped site does not look at any more because it made the core panic
    Quarantine(Quarantine),
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Settings are taken from, later ones win: defaults, the configuration file, environment \
                        (TIDEGATE_SYNC__PART_SIZE=16MiB), flags, --set.\nEvery setting is described in \
                        docs/configuration.md. Without any, the site listens on loopback and keeps recordings: \
                        uploads wait, parked with reason no_destination, until a [cloud] is configured."
)]
pub(crate) struct Run {
    /// Configuration file [default: $TIDEGATE_CONFIG, else ./tidegate.toml if it is there, else <data-dir>/tidegate.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the site keeps everything [default: ./tidegate-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the API and of device links [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Address of the embedded S3 endpoint [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) s3_listen: Option<String>,
    /// Base URL that devices are told for callbacks [default: none, callbacks stay as tasks name them]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Allow listening beyond loopback although nobody has to prove anything there
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Make another token that may do everything, and show it once: for who lost the first one
    #[arg(long)]
    pub(crate) new_admin_token: bool,
    /// Any other setting, for instance --set sync.uploads=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Also stop when standard input ends: for supervisors that may die without a signal
    #[arg(long)]
    pub(crate) stop_with_stdin: bool,
}

/// The way to a running site.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "The site")]
pub(crate) struct SiteAt {
    /// Address of the site's API: http://host:port, or https://host:port if it speaks TLS (listen.tls_cert)
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_API",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub(crate) api: String,
    /// Trust the authorities in this PEM file, and no others, for https://; the site's own certificate, if it signed
    /// itself, is such a file [default: the authorities of the system]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA", global = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Token of an operator, sent with each request and never printed. Other users of this machine may see the
    /// arguments of a command: better use --token-file, or the variable
    #[arg(long, value_name = "TOKEN", env = "TIDEGATE_TOKEN", hide_env_values = true, value_parser = hidden, global = true)]
    pub(crate) token: Option<Secret>,
    /// File with such a token; goes before --token
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
}

/// Whatever is said is taken: a parser that refused it would print it.
fn hidden(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate status                                              a site on this machine\n  \
                        tidegate status --api https://site.example:8080              one that speaks TLS\n  \
                        tidegate status --api https://10.0.0.5:8080 --ca site.pem    one whose certificate only it \
                        vouches for\n  TIDEGATE_TOKEN=… tidegate status                             one that asks for a token"
)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) site: SiteAt,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate sync 7              queue episode 7\n  tidegate sync 7 --watch      queue \
                        it (if it is not) and show a bar until it is in the cloud\n  tidegate sync --all --watch  \
                        queue everything that is approved and was never queued, and watch all uploads\n  \
                        tidegate sync --watch        queue nothing, watch what is on its way\n\n--watch ends with 0 \
                        when everything is in the cloud, with 1 when something needs a person, with 130 after \
                        Ctrl-C: uploads go on without it."
)]
pub(crate) struct Sync {
    /// Number of the episode, as `tidegate status` lists it
    #[arg(value_name = "EPISODE", required_unless_present_any = ["all", "watch"], conflicts_with = "all")]
    pub(crate) episode: Option<u64>,
    /// Every approved episode that was never queued
    #[arg(long)]
    pub(crate) all: bool,
    /// Show a bar per episode until each is in the cloud or waits for a person
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate watch                                 everything\n  tidegate watch --device \
                        robot-1 --device robot-2    what is about two devices\n  tidegate watch --types \
                        task_state,recording       recordings and the tasks they belong to\n\nFirst comes \
                        everything as it is, then each change. When the connection is lost it comes back and goes on \
                        where it was. All types are in docs/protocol.md, \"Device state stream\". Ends with 130 after \
                        Ctrl-C, with 1 if no site answers."
)]
pub(crate) struct Watch {
    /// Only what is about this device; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) device: Vec<String>,
    /// Only events of these types, separated by commas
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// Print each event as the JSON object that the site sent
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Nothing has to be installed or configured, and nothing is left behind. The demo starts a \
                        second S3 endpoint as the cloud and a site as a child process, lets devices record real MCAP \
                        files and upload them, kills the site (SIGKILL) in mid-upload, starts it again, and checks \
                        every object in the cloud against the bytes that were recorded."
)]
pub(crate) struct Demo {
    /// Number of devices
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) devices: u32,
    /// Recordings per device
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) recordings: u32,
    /// Size of a recording, for instance 50MiB; at least 32MiB unless --no-crash
    #[arg(long, default_value = "50MiB", value_name = "SIZE")]
    pub(crate) size: String,
    /// Do not kill the site in mid-upload
    #[arg(long)]
    pub(crate) no_crash: bool,
    /// Keep the directory with the site, the cloud and the logs, and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Nothing is written: a data directory of an earlier format is read as it is and not migrated. \
                        What an earlier format's program decided is checked through its changes alone."
)]
pub(crate) struct Replay {
    /// The data directory of a site that is not running
    #[arg(long, value_name = "DIR", default_value = "tidegate-data")]
    pub(crate) data_dir: PathBuf,
    /// Compare what comes of it with what is stored; the only thing it does so far
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "An input that makes the core panic three times in the same way is left out from then on: its link is \
                  closed, its request refused, its job parked. Another version of the program tries it again by \
                  itself; `clear` makes this one try it again."
)]
pub(crate) struct Quarantine {
    #[command(subcommand)]
    pub(crate) action: QuarantineAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineAction {
    /// Show every input that made the core panic, how often and where
    List(DataDir),
    /// Forget them all: the next start tries everything again
    Clear(DataDir),
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  tidegate token add --scope viewer --name wall   somebody may look\n  tidegate token \
                  device robot-1                   its recorder may connect\n  tidegate token device robot-1 \
                  --rotate          new tokens for old, links stay\n  tidegate token device robot-1 --revoke          \
                  none counts any more, links are closed\n  tidegate token registration --open-for 10m      devices \
                  may register themselves\n\nA token is shown once, when it is made: the site keeps only its digest. All of \
                  this needs a token with scope admin, where the site asks for tokens: the first one is shown when the \
                  site starts for the first time, another one by `tidegate run --new-admin-token`."
)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
    #[command(flatten)]
    pub(crate) site: SiteAt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Show every token, but never the token itself
    List,
    /// Make a token for the API
    Add {
        /// What it may do: viewer looks, operator does the daily work, admin everything
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        scope: String,
        /// What people call it
        #[arg(long)]
        name: Option<String>,
    },
    /// Take a token back
    Revoke {
        /// Its number, as `tidegate token list` shows it
        id: u64,
    },
    /// Make a token for a device, or put new ones in the place of all it has, or take them back
    Device {
        /// Id of the device
        device: String,
        /// For its uploader alone: what stands in the uploader's address, /transfer/TOKEN
        #[arg(long, conflicts_with_all = ["rotate", "revoke"])]
        transfer: bool,
        /// Put new tokens in the place of all it has; links that are up stay
        #[arg(long, conflicts_with = "revoke")]
        rotate: bool,
        /// Take all of its tokens back, and close its links
        #[arg(long)]
        revoke: bool,
    },
    /// Let devices register themselves for a while
    Registration {
        /// For how long, for instance 10m; 0s ends it
        #[arg(long, value_name = "TIME")]
        open_for: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DataDir {
    /// The data directory of a site that is not running
    #[arg(long, value_name = "DIR", default_value = "tidegate-data")]
    pub(crate) data_dir: PathBuf,
}
