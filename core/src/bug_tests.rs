//! Tests of the bank's names and of its door, and the bug that the environment plants in every test of the core.

use super::{Bug, PLANTED};
use crate::knobs::Knobs;
use std::string::ToString;

/// The bug that the environment plants in the default settings of every test, by `TIDEGATE_PLANT=H04`: shows which
/// tests guard against it.
#[cfg(tidegate_bugs)]
pub(crate) fn by_default() -> Option<Bug> {
    std::env::var("TIDEGATE_PLANT").ok().and_then(|id| Bug::from_id(&id))
}

#[test]
fn every_bug_is_found_by_its_id_and_the_ids_are_in_order() {
    for bug in Bug::ALL {
        assert_eq!(Bug::from_id(bug.id()), Some(*bug));
    }
    assert!(Bug::ALL.is_sorted());
    assert_eq!(Bug::from_id("b01"), None);
}

#[test]
fn a_bug_survives_the_boot_input_and_an_ordinary_build_has_none_to_plant() {
    for bug in Bug::ALL {
        let planting = Knobs::default().planting(*bug);
        assert_eq!(planting.is_ok(), PLANTED);
        match planting {
            Ok(knobs) => {
                assert_ne!(knobs, Knobs::default());
                let bytes = minicbor::to_vec(&knobs).expect("writing to a vector cannot fail");
                assert_eq!(minicbor::decode::<Knobs>(&bytes).expect("just written"), knobs);
            }
            Err(refused) => {
                assert!(refused.to_string().contains("TIDEGATE_BUGS=1"));
            }
        }
    }
}
