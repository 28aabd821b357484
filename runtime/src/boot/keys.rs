//! The keys that devices upload with: configured, or made once and kept in a file that only its owner can read. And the
//! first token of the API, of which nothing is kept but a digest.

use std::io;
use std::path::Path;

use tidegate_core::input::{Request, RosterRequest};
use tidegate_core::row::Scope;

use super::{BootError, EdgeKeys};
use crate::api::Access;
use crate::config::{Config, Secret, read_text};
use crate::grants::{Grants, Mint};
use crate::inbox::Inbox;
use crate::seam::{Blocking, Disk, DiskFile, Open, Seams};

/// The configured keys, else those of the data directory, else fresh ones.
pub(super) async fn edge_keys<S: Seams>(seams: &S, config: &Config) -> Result<EdgeKeys, BootError> {
    if let Some((access_key, secret_key)) = config.edge.keys.clone() {
        return Ok(EdgeKeys { access_key, secret_key, first_time: false });
    }
    let mut entropy = [0; ENTROPY];
    seams.blocking().entropy(&mut entropy);
    let (disk, dir) = (seams.disk().clone(), config.data_dir.clone());
    let result = seams.blocking().run(move || read_or_make(&disk, &dir, entropy)).await;
    result.map_err(|error| BootError::File { path: config.data_dir.join(FILE).display().to_string(), error })
}

fn read_or_make<D: Disk>(disk: &D, dir: &Path, entropy: [u8; ENTROPY]) -> io::Result<EdgeKeys> {
    let path = dir.join(FILE);
    match read_text(disk, &path) {
        Ok(text) => {
            // The parser's own message would show the line, and with it the secret.
            let bad = || io::Error::new(io::ErrorKind::InvalidData, "it must hold access_key and secret_key");
            let table: toml::Table = text.parse().map_err(|_| bad())?;
            let field = |name: &str| table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
            let access_key = field("access_key").ok_or_else(bad)?;
            let secret_key = Secret::new(field("secret_key").ok_or_else(bad)?);
            Ok(EdgeKeys { access_key, secret_key, first_time: false })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let letters = |bytes: &[u8]| {
                bytes.iter().map(|b| char::from(LETTERS[usize::from(b & 31)])).collect::<String>()
            };
            let access_key = format!("TG{}", letters(&entropy[..18]));
            let secret_key = letters(&entropy[18..]);
            let text = format!(
                "# Keys that devices upload with. Made by tidegate at its first start.\n\
                 access_key = \"{access_key}\"\nsecret_key = \"{secret_key}\"\n"
            );
            let temporary = dir.join(FILE_NEW);
            let file = disk.open(&temporary, Open::Create)?;
            // Before there is anything in it to be read.
            disk.restrict_to_owner(&temporary)?;
            file.write_all_at(text.as_bytes(), 0)?;
            file.sync()?;
            disk.rename(&temporary, &path)?;
            disk.sync_dir(dir)?;
            Ok(EdgeKeys { access_key, secret_key: Secret::new(secret_key), first_time: true })
        }
        Err(error) => Err(error),
    }
}

/// What the API asks for.
pub(super) fn access(config: &Config, grants: Grants, mint: Mint) -> Access {
    Access {
        grants,
        mint,
        demanded: config.api_tokens(),
        callback_tokens: config.callback_tokens(),
        open_registration: config.open_registration(),
    }
}

/// Makes a token that may do everything, if the API asks for tokens and there is none such, or if one was asked for.
pub(super) async fn admin_token(
    config: &Config,
    inbox: &Inbox,
    access: &Access,
) -> Result<Option<Secret>, BootError> {
    let first = access.demanded && !access.grants.has(Scope::Admin);
    if !first && !config.new_admin_token {
        return Ok(None);
    }
    let (secret, token) = access.mint.draw(crate::grants::OPERATOR);
    let name = Some(if first { "first" } else { "asked for at a start" }.to_owned());
    let request = RosterRequest::Issue { scope: Scope::Admin, device: None, name, token };
    match inbox.request(Request::Roster(request), None).await {
        Ok(Ok(_)) => Ok(Some(secret)),
        Ok(Err(refusal)) => {
            Err(BootError::Config(format!("no token for the API could be made: {refusal:?}")))
        }
        Err(gone) => Err(BootError::Config(format!("no token for the API could be made: {gone}"))),
    }
}

const FILE: &str = "edge-keys.toml";
const FILE_NEW: &str = "edge-keys.toml.new";
/// 32 characters that nobody mistakes for one another, 5 bits each: 90 for the name, 200 for the secret.
const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const ENTROPY: usize = 18 + 40;
