//! Signatures: who vouches for which bytes, and what a forged or an old one gets.

use tidegate_core::policy::Slot;
use tidegate_policies::sign::{PublicKey, Signature, SignedLimits, SigningKey, TrustedKey, unsigned, verify};

use crate::rig;

fn key(n: u8) -> SigningKey {
    SigningKey::from_hex(&format!("{n:02x}").repeat(32)).unwrap()
}

fn trusted(key: &SigningKey, counter: u64) -> TrustedKey {
    TrustedKey { name: String::from("release"), key: key.public(), counter }
}

#[test]
fn a_good_signature_names_its_key_and_its_limits_hold() {
    let bytes = rig::fixture("suite");
    let limits = SignedLimits { fuel: Some(5_000), memory: None, result_bytes: None };
    let file = key(1).sign(&bytes, Some(&[Slot::Retry]), Some(limits), 7).to_json();
    let signed = verify(&bytes, file.as_bytes(), &[trusted(&key(2), 0), trusted(&key(1), 7)]).unwrap();
    assert_eq!((signed.counter, signed.key), (7, key(1).public()));
    assert_eq!(signed.manifest.limits.fuel, Some(5_000));
    let module = rig::host().admit_with(&bytes, &signed.manifest).unwrap();
    assert_eq!(module.facts().signed_by.as_deref(), Some("release"));
    assert_eq!(module.facts().slots, [Slot::Retry]);
}

#[test]
fn a_bad_signature_is_refused_and_says_why() {
    let bytes = rig::fixture("suite");
    let good = key(1).sign(&bytes, None, None, 7);
    let check = |signature: &Signature, bytes: &[u8], counter, why: &str| {
        let trusted = [trusted(&key(1), counter)];
        let rejection = verify(bytes, signature.to_json().as_bytes(), &trusted).unwrap_err();
        assert_eq!(rejection.code, "signature");
        assert!(rejection.why.contains(why), "{rejection}");
    };
    check(&good, b"other bytes", 0, "it is for the module");
    check(&good, &bytes, 8, "its counter is 7; the key release was seen with 8 already");
    check(&key(2).sign(&bytes, None, None, 7), &bytes, 0, "which this site does not trust");
    let forged = "the signature is not one of the key release";
    check(&Signature { counter: 9, ..good.clone() }, &bytes, 0, forged);
    check(&Signature { hooks: Some(vec![String::from("retry")]), ..good.clone() }, &bytes, 0, forged);
    check(&Signature { limits: Some(SignedLimits::default()), ..good.clone() }, &bytes, 0, forged);
    check(&Signature { signature: "0".repeat(128), ..good.clone() }, &bytes, 0, forged);
    check(&Signature { signature: String::from("0"), ..good.clone() }, &bytes, 0, "128 hexadecimal digits");
    check(&Signature { key: String::from("x"), ..good.clone() }, &bytes, 0, "64 hexadecimal digits");
    let rejection = verify(&bytes, b"{}", &[]).unwrap_err();
    assert!(rejection.why.contains("missing field"), "{rejection}");
}

#[test]
fn a_site_that_trusts_a_key_takes_nothing_unsigned() {
    assert!(unsigned(&[]).is_ok());
    let rejection = unsigned(&[trusted(&key(1), 0)]).unwrap_err();
    assert_eq!(
        rejection.to_string(),
        "signature: it is not signed; this site takes modules signed by release"
    );
}

#[test]
fn keys_are_text_and_back_and_the_secret_is_never_shown() {
    let made = SigningKey::generate().unwrap();
    assert_ne!(made.to_hex(), SigningKey::generate().unwrap().to_hex());
    let again = SigningKey::from_hex(&made.to_hex()).unwrap();
    assert_eq!(again.public(), made.public());
    assert_eq!(PublicKey::from_hex(&made.public().to_hex()), Some(made.public()));
    assert!(!format!("{made:?}").contains(&made.to_hex()));
    assert!(SigningKey::from_hex("short").is_none() && PublicKey::from_hex(&"g".repeat(64)).is_none());
}
