//! Stored and missing parts: what a store lists against what we know. Changes nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::digest::Sha256;
use crate::id::PartNo;
use crate::object::{Composite, ListedPart, PartFacts};
use crate::row::Plan;
use crate::upload::plan;

/// Acknowledged parts by number.
pub(super) type Parts = BTreeMap<PartNo, PartFacts>;

/// Parts that are not stored.
pub(super) fn missing(plan: Plan, stored: &Parts) -> BTreeSet<PartNo> {
    (1..=plan.parts).map(PartNo).filter(|part| !stored.contains_key(part)).collect()
}

/// Whether every part is stored.
pub(super) fn complete(plan: Plan, stored: &Parts) -> bool {
    stored.len() == usize::from(plan.parts)
}

/// What an object has for a composite checksum that is made of these parts and no others.
pub(super) fn composite(plan: Plan, stored: &Parts) -> Composite {
    Composite { sha256: Sha256::composite(stored.values().map(|part| part.sha256)), parts: plan.parts }
}

/// Parts that the store holds and whose answer we never got, the last first: those it keeps a SHA-256 of, so that
/// they can be compared with the source. Others are not trusted: they are sent again.
pub(super) fn unanswered(plan: Plan, len: u64, stored: &Parts, listed: &[ListedPart]) -> Vec<ListedPart> {
    let ours = |l: &&ListedPart| {
        let planned = (1..=plan.parts).contains(&l.part.0);
        planned
            && l.sha256.is_some()
            && l.len == plan::span(plan, len, l.part).len
            && !stored.contains_key(&l.part)
    };
    let mut found: Vec<ListedPart> = listed.iter().filter(ours).cloned().collect();
    found.sort_by_key(|l| core::cmp::Reverse(l.part));
    found
}

/// Parts we counted that the store does not hold as we know them.
pub(super) fn lost(stored: &Parts, listed: &[ListedPart]) -> Vec<PartNo> {
    let listed: BTreeMap<PartNo, &ListedPart> = listed.iter().map(|l| (l.part, l)).collect();
    let held = |part: &PartNo, facts: &PartFacts| {
        listed.get(part).is_some_and(|l| l.etag == facts.etag && l.len == facts.len)
    };
    stored.iter().filter(|(part, facts)| !held(part, facts)).map(|(part, _)| *part).collect()
}

/// Whether a multipart upload that we found may be ours to go on with: all it holds is cut as planned.
pub(super) fn adoptable(plan: Plan, len: u64, listed: &[ListedPart]) -> bool {
    listed.iter().all(|l| (1..=plan.parts).contains(&l.part.0) && l.len == plan::span(plan, len, l.part).len)
}
