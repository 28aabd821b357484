//! `tidegate run`: a site until it is told to stop. Owns signals and the first words on the terminal.

use std::sync::Arc;

use tidegate_core::object::Store;
use tidegate_runtime::boot::{self, BootError, Site};
use tidegate_runtime::config::{Config, Layers};
use tidegate_runtime::object::ObjectStore;
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::Seams;
use tidegate_runtime::telemetry;
use tidegate_s3::{CloudConfig, CloudStore};
use tokio::io::AsyncReadExt;

use crate::args::Run;
use crate::{Done, Exit, Failure, say};

pub(crate) async fn run(args: Run) -> Done {
    let seams = RealSeams::new();
    let layers = Layers { file: args.config.clone(), environment: environment(), flags: flags(&args)? };
    let config = Config::load(seams.disk(), &layers)
        .map_err(|problems| Failure::new(Exit::Configuration, format!("the configuration is not usable\n{problems}")))?;
    telemetry::start(&config.log);
    let cloud = match &config.cloud {
        Some(cloud) => Some(connect(&seams, cloud)?),
        None => None,
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let site = boot::start(seams, config, cloud).await.map_err(refused)?;
    greet(&site);
    wait(site, args.stop_with_stdin).await
}

fn environment() -> Vec<(String, String)> {
    // A variable that is not UTF-8 cannot be one of ours.
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
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
    for (key, value) in [("listen.api", &args.listen), ("listen.s3", &args.s3_listen), ("public_url", &args.public_url)] {
        if let Some(value) = value {
            put(key, toml::Value::String(value.clone()));
        }
    }
    if args.insecure {
        put("listen.insecure", toml::Value::Boolean(true));
    }
    for set in &args.set {
        let usage = || Failure::new(Exit::Usage, format!("--set {set}: use KEY=VALUE, for instance --set sync.uploads=4"));
        let (key, value) = set.split_once('=').ok_or_else(usage)?;
        // Numbers and booleans as such, everything else as text.
        let value = match value.parse::<i64>() {
            Ok(number) => toml::Value::Integer(number),
            Err(_) => value.parse::<bool>().map_or_else(|_| toml::Value::String(value.to_string()), toml::Value::Boolean),
        };
        if key.is_empty() || !put(key, value) {
            return Err(usage());
        }
    }
    Ok(table)
}

fn connect(
    seams: &RealSeams,
    cloud: &tidegate_runtime::config::Cloud,
) -> Result<CloudSetup, Failure> {
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
    let seams = seams.clone();
    Ok(Box::new(move |source| {
        CloudStore::new(seams, config, source).map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(|error| error.to_string())
    }))
}
