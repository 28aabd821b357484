//! The bytes of devices and tokens, and any of them for the round trips.

use super::*;
use crate::id::Role;

fn device() -> DeviceRow {
    DeviceRow {
        id: DeviceId::new("d1").expect("legal"),
        number: 3,
        factory: Some(Named { number: 1, name: "F".into() }),
        robot_type: Some(Named { number: 2, name: "T".into() }),
        seq: Some(4),
        registered_at: Wall(5),
        disabled_at: None,
    }
}

fn token() -> TokenRow {
    TokenRow {
        id: 6,
        scope: Scope::Transfer,
        device: Some(DeviceId::new("d1").expect("legal")),
        name: None,
        created_at: Wall(7),
        used_at: Some(Wall(8)),
    }
}

#[test]
fn devices_tokens_and_their_counters_have_these_bytes() {
    let meta = MetaRow { next_episode: 2, next_job: 3, next_device: Some(4), next_token: Some(5) };
    for (row, golden) in [
        (Row::Device(Box::new(device())), "866264310382016146820261540405"),
        (Row::Token(Box::new(token())), "8606820180626431f60708"),
        (Row::Meta(meta), "8402030405"),
    ] {
        let golden = golden.replace(' ', "");
        assert_eq!(hex(&row.to_bytes()), golden, "{row:?}");
        assert_eq!(Row::from_bytes(row.kind(), &bytes(&golden)), Ok(row));
    }
}

#[test]
fn a_scope_is_known_by_its_word_and_fits_no_more_than_it_says() {
    for scope in Scope::ALL {
        assert_eq!(Scope::of(scope.name()), Some(scope));
        assert_eq!(scope.is_of_device(), scope.fits(Role::Transfer));
        assert_eq!(scope.fits(Role::Recorder), scope == Scope::Recorder);
    }
    assert_eq!(Scope::of("root"), None);
}

fn named() -> impl Strategy<Value = Option<Named>> {
    proptest::option::of((any::<u32>(), text()).prop_map(|(number, name)| Named { number, name }))
}

pub(super) fn any_device() -> impl Strategy<Value = Row> {
    let numbers = (any::<u64>(), any::<Option<u32>>());
    (text(), numbers, named(), named(), wall(), proptest::option::of(wall())).prop_map(
        |(id, (number, seq), factory, robot_type, registered_at, disabled_at)| {
            let id = DeviceId::new(&id).expect("legal");
            Row::Device(Box::new(DeviceRow {
                id,
                number,
                factory,
                robot_type,
                seq,
                registered_at,
                disabled_at,
            }))
        },
    )
}

pub(super) fn any_token() -> impl Strategy<Value = Row> {
    let times = (wall(), proptest::option::of(wall()));
    (any::<u64>(), 0..5_usize, proptest::option::of(text()), proptest::option::of(text()), times).prop_map(
        |(id, scope, device, name, (created_at, used_at))| {
            let device = device.map(|id| DeviceId::new(&id).expect("legal"));
            Row::Token(Box::new(TokenRow { id, scope: Scope::ALL[scope], device, name, created_at, used_at }))
        },
    )
}
