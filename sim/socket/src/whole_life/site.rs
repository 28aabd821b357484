//! The two programs that store recordings: the site, booted as the binary boots it, and a cloud.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_runtime::boot;
use tidegate_runtime::config::{self, Config, Secret};
use tidegate_runtime::ingest::{AccessKey, Endpoint, EndpointConfig, Spool};
use tidegate_runtime::object::ObjectStore;
use tidegate_runtime::seam::{Net, Seams};
use tidegate_s3::{CloudConfig, CloudStore};

use super::{API, BUCKET, CLOUD, DATA, EDGE_BUCKET, KEY, Notes, S3, SECRET, SITE};
use crate::socket_world::{FailingSeams, Faults, Power, SimDisk, SimSeams};

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn config() -> Config {
    let mut config = Config {
        site: EDGE_BUCKET.trim_start_matches("edge-").to_owned(),
        data_dir: PathBuf::from(DATA),
        cloud: Some(config::Cloud {
            endpoint: Some(format!("http://{CLOUD}:{S3}")),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            access_key: KEY.to_owned(),
            secret_key: Secret::new(SECRET),
            session_token: None,
            path_style: true,
            attempt_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
        }),
        ..Config::default()
    };
    config.listen.api = any(API);
    config.listen.s3 = any(S3);
    config.listen.insecure = true;
    config.public_url = Some(format!("http://{SITE}:{API}"));
    // Two parts of the smallest size: the recording is a little longer than one.
    config.sync.part_size = 5 << 20;
    // What modules do is the policy host's to show; here they would only cost time.
    config.policies.native = true;
    config
}

/// The site, for as long as its power lasts. Without `keys` it makes some at its first start, as a new site does; a
/// device has to know them beforehand.
pub(super) async fn run(
    disk: SimDisk,
    faults: Option<Faults>,
    seed: u64,
    keys: bool,
    notes: Notes,
) -> Result<(), Box<dyn std::error::Error>> {
    let boots = {
        let mut notes = notes.get();
        notes.boots += 1;
        notes.boots
    };
    let power = disk.power().clone();
    let seams = SimSeams::new(disk, seed.wrapping_mul(31).wrapping_add(boots));
    let ended = match faults.clone() {
        Some(faults) => serve(FailingSeams::new(seams, faults), &power, keys, &notes).await,
        None => serve(seams, &power, keys, &notes).await,
    };
    if power.is_out() {
        // What a host without power would say is heard by nobody; the world crashes it next.
        std::future::pending::<()>().await;
    }
    if faults.is_some() {
        {
            let mut notes = notes.get();
            notes.ends.push(ended);
            notes.ended = true;
        }
        std::future::pending::<()>().await;
        return Ok(());
    }
    Err(format!("start {boots} of the site ended with its power on: {ended}").into())
}

async fn serve<S: Seams>(seams: S, power: &Power, keys: bool, notes: &Notes) -> String {
    let mut config = config();
    if keys {
        config.edge.keys = Some((KEY.to_owned(), Secret::new(SECRET)));
    }
    let to_cloud = config.cloud.clone();
    let for_cloud = seams.clone();
    let started = boot::start(seams, config, move |source, timeouts| {
        let Some(cloud) = to_cloud else { return Ok(None) };
        let config = CloudConfig {
            endpoint: cloud.endpoint,
            region: cloud.region,
            bucket: cloud.bucket,
            access_key: cloud.access_key,
            secret_key: cloud.secret_key.reveal().to_owned(),
            session_token: None,
            path_style: cloud.path_style,
            attempt_timeout: cloud.attempt_timeout,
            connect_timeout: cloud.connect_timeout,
        };
        let store =
            CloudStore::new(for_cloud, &config, source, timeouts).map_err(|error| error.to_string())?;
        Ok(Some(Arc::new(store) as Arc<dyn ObjectStore>))
    });
    let mut site = match started.await {
        Ok(site) => site,
        Err(error) => return format!("it did not start: {error}"),
    };
    {
        let mut notes = notes.get();
        notes.served_at.get_or_insert(power.ops());
        let shown = site.edge_keys.access_key.clone();
        if *notes.edge_key.get_or_insert(shown.clone()) != shown {
            return "devices were told keys that are no longer taken".to_owned();
        }
    }
    match site.wait().await {
        Ok(()) => "it stopped".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A store that never fails.
pub(super) async fn cloud(disk: SimDisk, seed: u64, notes: Notes) -> Result<(), Box<dyn std::error::Error>> {
    let seams = SimSeams::new(disk, seed ^ 0xC10D);
    let (spool, _) =
        Spool::open(seams.clone(), PathBuf::from("/cloud")).await.map_err(|error| error.to_string())?;
    spool.create_bucket(BUCKET).await.map_err(|error| error.to_string())?;
    notes.get().cloud = Some(spool.clone());
    let keys = vec![AccessKey { id: KEY.to_owned(), secret: SECRET.to_owned() }];
    let endpoint = Endpoint::new(spool, EndpointConfig { keys, ..EndpointConfig::default() });
    let listener = seams.net().bind(any(S3)).await?;
    endpoint.serve(listener, std::future::pending()).await;
    Ok(())
}
