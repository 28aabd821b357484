//! `tidegate run`: a site until it is told to stop. Owns signals and the first words on the terminal.

use std::sync::Arc;

use tidegate_runtime::boot::{self, BootError, Site};
use tidegate_runtime::config::{Config, Door, Layers};
use tidegate_runtime::object::{ObjectStore, SourceRead};
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::Seams;
use tidegate_runtime::telemetry;
use tidegate_runtime::timeouts::Timeouts;
use tidegate_s3::{CloudConfig, CloudStore};
use tokio::io::AsyncReadExt;

use crate::args::Run;
use crate::{Done, Exit, Failure, say};

pub(crate) async fn run(args: Run) -> Done {
    let seams = RealSeams::new();
    let layers = Layers { file: args.config.clone(), environment: environment(), flags: flags(&args)? };
    let mut config = Config::load(seams.disk(), &layers).map_err(|problems| {
        Failure::new(Exit::Configuration, format!("the configuration is not usable\n{problems}"))
    })?;
    config.new_admin_token = args.new_admin_token;
    // A process runs one site: this is the first call, and the only one.
    let _first = telemetry::start(&config.log);
    let (cloud, bucket) = (config.cloud.clone(), config.edge_bucket());
    let has_cloud = cloud.is_some();
    let connecting = seams.clone();
    let site = boot::start(seams, config, move |source, timeouts| {
        destination(&connecting, cloud.as_ref(), source, timeouts)
    })
    .await
    .map_err(|error| refused(&error))?;
    greet(&site, &bucket, has_cloud);
    wait(site, args.stop_with_stdin).await
}

fn environment() -> Vec<(String, String)> {
    // A variable that is not UTF-8 cannot be one of ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What the flags say, by the names of the configuration file.
fn flags(args: &Run) -> Result<toml::Table, Failure> {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: toml::Value| {
        let mut at = &mut table;
        let mut path = key.split('.').peekable();
        while let Some(name) = path.next() {
            if path.peek().is_none() {
                at.insert(name.to_string(), value);
                return true;
            }
            let inner = at.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner.as_table_mut() {
                Some(inner) => at = inner,
                None => return false,
            }
        }
        false
    };
    if let Some(dir) = &args.data_dir {
        put("data_dir", toml::Value::String(dir.to_string_lossy().into_owned()));
    }
    for (key, value) in
        [("listen.api", &args.listen), ("listen.s3", &args.s3_listen), ("public_url", &args.public_url)]
    {
        if let Some(value) = value {
            put(key, toml::Value::String(value.clone()));
        }
    }
    if args.insecure {
        put("listen.insecure", toml::Value::Boolean(true));
    }
    for set in &args.set {
        // What stands behind the name may be a secret.
        let name: String =
            set.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_')).collect();
        let refused = |why: &str| Failure::new(Exit::Usage, format!("--set {name}: {why}"));
        let (key, value) = set
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| refused("use KEY=VALUE, for instance --set sync.uploads=4"))?;
        // A text, as in the environment: the setting itself knows whether it is a number, and a key of digits is none.
        if !put(key, toml::Value::String(value.to_string())) {
            return Err(refused("another --set gives its section a value; name the setting, as section.key"));
        }
    }
    Ok(table)
}

/// Makes the destination, if one is configured, out of a reader of the recordings.
fn destination(
    seams: &RealSeams,
    cloud: Option<&tidegate_runtime::config::Cloud>,
    source: Arc<dyn SourceRead>,
    timeouts: Timeouts,
) -> Result<Option<Arc<dyn ObjectStore>>, String> {
    let Some(cloud) = cloud else { return Ok(None) };
    let config = CloudConfig {
        endpoint: cloud.endpoint.clone(),
        region: cloud.region.clone(),
        bucket: cloud.bucket.clone(),
        access_key: cloud.access_key.clone(),
        secret_key: cloud.secret_key.reveal().to_string(),
        session_token: cloud.session_token.as_ref().map(|token| token.reveal().to_string()),
        path_style: cloud.path_style,
        attempt_timeout: cloud.attempt_timeout,
        connect_timeout: cloud.connect_timeout,
    };
    let store = CloudStore::new(seams.clone(), &config, source, timeouts)
        .map_err(|error| format!("[cloud]: {error}"))?;
    Ok(Some(Arc::new(store)))
}

fn refused(error: &BootError) -> Failure {
    let exit = match error.exit_code() {
        3 => Exit::Configuration,
        4 => Exit::DataDirectory,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// The first words of a site: where it is, and the keys it made, this once.
fn greet(site: &Site, bucket: &str, has_cloud: bool) {
    let scheme = |door: Door| if site.encrypts(door) { "https" } else { "http" };
    say(&format!("site is up: {}://{} (start {})", scheme(Door::Api), site.api_addr, site.boot));
    say(&format!("devices upload to {}://{}, bucket {bucket}", scheme(Door::S3), site.s3_addr));
    if site.edge_keys.first_time {
        say("S3 keys for devices were made and are kept in the data directory; they are shown only now:");
        say(&format!("  access key  {}", site.edge_keys.access_key));
        say(&format!("  secret key  {}", site.edge_keys.secret_key.reveal()));
    }
    if let Some(token) = &site.admin_token {
        say(
            "a token that may do everything was made; it is shown only now, and the site keeps no copy of it:",
        );
        say(&format!("  {}", token.reveal()));
    }
    if !has_cloud {
        say("no cloud is configured: approved recordings wait here (docs/configuration.md, [cloud])");
    }
}

/// Waits for the first request to stop, and stops in order; the second one ends the process at once.
async fn wait(mut site: Site, stop_with_stdin: bool) -> Done {
    let mut signals = Signals::new()?;
    let broken = tokio::select! {
        biased;
        () = signals.next() => None,
        () = end_of_stdin(), if stop_with_stdin => None,
        ended = site.wait() => ended.err(),
    };
    if let Some(error) = broken {
        let text = error.to_string();
        // The rest is taken down; what was wrong is the first error.
        let _ = site.shutdown().await;
        return Err(Failure::failed(text));
    }
    tokio::select! {
        biased;
        () = signals.next() => Err(Failure::failed("told to stop a second time: ended at once; nothing durable is lost")),
        ended = site.shutdown() => ended.map_err(|error| Failure::failed(error.to_string())),
    }
}

async fn end_of_stdin() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    // Whatever is written to it says nothing; only its end does.
    while matches!(stdin.read(&mut buffer).await, Ok(n) if n > 0) {}
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let trouble = |error: std::io::Error| Failure::failed(format!("cannot listen for signals: {error}"));
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(trouble)?,
            interrupt: signal(SignalKind::interrupt()).map_err(trouble)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::flags;
    use crate::args::{Args, Command};

    fn set(words: &[&str]) -> Result<toml::Table, String> {
        let mut line = vec!["tidegate", "run"];
        line.extend(words.iter().flat_map(|word| ["--set", word]));
        let Command::Run(run) = Args::parse_from(line).command else { panic!("it is a run") };
        flags(&run).map_err(|failure| failure.text)
    }

    #[test]
    fn what_is_set_is_a_text_also_if_it_looks_like_a_number_or_a_truth() {
        let table = set(&["edge.secret_key=12345678", "site=true", "sync.uploads=4"]).expect("settings");
        for (section, key, value) in [("edge", "secret_key", "12345678"), ("sync", "uploads", "4")] {
            assert_eq!(table[section][key].as_str(), Some(value), "{section}.{key}");
        }
        assert_eq!(table["site"].as_str(), Some("true"));
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_refused_by_its_name_and_never_shows_its_value() {
        let cases = [
            (&["cloud=x", "cloud.secret_key=hidden"][..], "cloud.secret_key"),
            (&["cloud.secret_key:hidden"][..], "cloud.secret_key"),
            (&["=hidden"][..], "KEY=VALUE"),
        ];
        for (words, named) in cases {
            let text = set(words).expect_err("it makes no sense");
            assert!(text.contains(named) && !text.contains("hidden"), "{words:?}: {text}");
        }
    }
}
