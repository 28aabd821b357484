//! Signatures of modules: a small JSON file beside the module says who vouches for which bytes, for which hooks and
//! within which limits. Ed25519 by ring; reads no file and keeps no counter, who calls it does.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tidegate_core::digest::Sha256;
use tidegate_core::policy::Slot;

use crate::ceilings::Limits;
use crate::module::{Manifest, Rejection};

/// First line of what is signed: a signature for anything else never fits.
const PURPOSE: &str = "tidegate-policy-signature/1";

/// A signature file, as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The signer's public key: 64 hexadecimal digits.
    pub key: String,
    /// SHA-256 of the module: 64 hexadecimal digits.
    pub sha256: String,
    /// Hooks that the module may serve; all that it exports if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<String>>,
    /// Limits below the site's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<SignedLimits>,
    /// Grows with every signature of a key. The site takes none below the last one it saw: an old module with an old
    /// flaw does not come back.
    pub counter: u64,
    /// Over all of the above: 128 hexadecimal digits.
    pub signature: String,
}

/// Limits in a signature file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedLimits {
    /// Fuel of a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
}

/// A public key that the site trusts, and the name the operator gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// For people.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// The highest counter seen of it; signatures with a lower one are refused, the same one is not.
    pub counter: u64,
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// From 64 hexadecimal digits; anything else is none.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<PublicKey> {
        decode(text.trim()).map(PublicKey)
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        encode(&self.0)
    }
}

/// What a good signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What admission is to hold the module to.
    pub manifest: Manifest,
    /// Who signed.
    pub key: PublicKey,
    /// To be kept as the key's highest.
    pub counter: u64,
}

/// Checks a signature file against a module and the keys of the site. Every rejection has the code `signature`.
pub fn verify(module: &[u8], file: &[u8], trusted: &[TrustedKey]) -> Result<Signed, Rejection> {
    let refused = |why: String| Rejection::new("signature", why);
    let signature: Signature = serde_json::from_slice(file)
        .map_err(|error| refused(format!("the signature file cannot be read: {error}")))?;
    let key = PublicKey::from_hex(&signature.key)
        .ok_or_else(|| refused(String::from("key: must be 64 hexadecimal digits")))?;
    let trusted = trusted.iter().find(|trusted| trusted.key == key).ok_or_else(|| {
        refused(format!("signed with the key {}, which this site does not trust", key.to_hex()))
    })?;
    let bytes: [u8; 64] = decode(&signature.signature)
        .ok_or_else(|| refused(String::from("signature: must be 128 hexadecimal digits")))?;
    UnparsedPublicKey::new(&ED25519, key.0)
        .verify(signature.message().as_bytes(), &bytes)
        .map_err(|_| refused(format!("the signature is not one of the key {}", trusted.name)))?;
    let hash = Sha256::of(module);
    if Sha256::from_hex(&signature.sha256) != Some(hash) {
        return Err(refused(format!("it is for the module {}, not for {hash}", signature.sha256)));
    }
    if signature.counter < trusted.counter {
        return Err(refused(format!(
            "its counter is {}; the key {} was seen with {} already",
            signature.counter, trusted.name, trusted.counter
        )));
    }
    let hooks = match &signature.hooks {
        None => None,
        Some(names) => {
            let slots = names.iter().map(|name| {
                Slot::of(name).ok_or_else(|| refused(format!("hooks: {name} is no hook of this site")))
            });
            Some(slots.collect::<Result<Vec<_>, _>>()?)
        }
    };
    let limits = signature.limits.unwrap_or_default();
    let limits = Limits { fuel: limits.fuel, memory: limits.memory, result_bytes: limits.result_bytes };
    let manifest = Manifest { hooks, limits, signed_by: Some(trusted.name.clone()) };
    Ok(Signed { manifest, key, counter: signature.counter })
}

/// A module without a signature: refused as soon as the site trusts any key.
pub fn unsigned(trusted: &[TrustedKey]) -> Result<Manifest, Rejection> {
    if trusted.is_empty() {
        return Ok(Manifest::default());
    }
    let names: Vec<_> = trusted.iter().map(|key| key.name.as_str()).collect();
    let why = format!("it is not signed; this site takes modules signed by {}", names.join(" or "));
    Err(Rejection::new("signature", why))
}

/// A private key. Never printed by `Debug`.
pub struct SigningKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public().to_hex()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new one, from the system's randomness. None if there is none.
    #[must_use]
    pub fn generate() -> Option<SigningKey> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).ok()?;
        SigningKey::from_seed(seed)
    }

    /// From 64 hexadecimal digits, as [`SigningKey::to_hex`] gives them; anything else is none.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<SigningKey> {
        SigningKey::from_seed(decode(text.trim())?)
    }

    fn from_seed(seed: [u8; 32]) -> Option<SigningKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        Some(SigningKey { seed, pair })
    }

    /// The secret itself, for the key file.
    #[must_use]
    pub fn to_hex(&self) -> String {
        encode(&self.seed)
    }

    /// What sites trust.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Vouches for a module.
    #[must_use]
    pub fn sign(
        &self,
        module: &[u8],
        hooks: Option<&[Slot]>,
        limits: Option<SignedLimits>,
        counter: u64,
    ) -> Signature {
        let mut signature = Signature {
            key: self.public().to_hex(),
            sha256: Sha256::of(module).to_string(),
            hooks: hooks.map(|hooks| hooks.iter().map(|slot| slot.name().to_owned()).collect()),
            limits,
            counter,
            signature: String::new(),
        };
        signature.signature = encode(self.pair.sign(signature.message().as_bytes()).as_ref());
        signature
    }
}

impl Signature {
    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What is signed: one line per field, so that equal files have one text and different ones never the same. Names of
    /// hooks are quoted, for they are a stranger's words until they are known.
    fn message(&self) -> String {
        let number = |limit: Option<u64>| limit.map_or_else(|| String::from("-"), |limit| limit.to_string());
        let hooks = match &self.hooks {
            None => String::from("-"),
            Some(hooks) => format!("{hooks:?}"),
        };
        let limits = match self.limits {
            None => String::from("-"),
            Some(SignedLimits { fuel, memory, result_bytes }) => {
                format!("{} {} {}", number(fuel), number(memory), number(result_bytes))
            }
        };
        format!(
            "{PURPOSE}\nkey {:?}\nsha256 {:?}\nhooks {hooks}\nlimits {limits}\ncounter {}\n",
            self.key, self.sha256, self.counter
        )
    }
}

fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(out)
}
