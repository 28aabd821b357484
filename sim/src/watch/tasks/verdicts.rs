//! Verdicts on episodes, and what the check of their content found: by whom, after what, and whether it is true. Asks the
//! stores what a recording is, never the core.

use tidegate_core::change::EpisodeChange;
use tidegate_core::id::EpisodeId;
use tidegate_core::input::{Input, Request};
use tidegate_core::row::{Doubt, EpisodeRow, Inspection, Key, Qa, Row, SyncMark};
use tidegate_core::time::Wall;

use crate::store::recording;
use crate::watch::{Broken, Premises, Seen, demand, rows};

/// I15: somebody judges, and may.
pub(super) fn judged(
    seen: &Seen<'_>,
    change: &EpisodeChange,
    (episode, qa, at): (EpisodeId, Qa, Wall),
    premises: &mut Premises,
) -> Result<(), Broken> {
    premises.met("I15.judged");
    let old = match seen.was(&Key::Episode(episode)) {
        Some(Row::Episode(row)) => Some(row),
        _ => None,
    };
    let aside = old.is_some_and(|row| row.qa == Qa::NeedsInspection);
    let asked = match seen.input {
        Input::Request { request: Request::Judge { episode: id, approve, .. }, .. } => {
            let verdict = match (*approve, aside) {
                (true, true) => Qa::InspectorApproved,
                (true, false) => Qa::Approved,
                (false, _) => Qa::Rejected,
            };
            *id == episode && qa == verdict
        }
        _ => automatic(seen, old, qa, premises)?,
    };
    let was = old.map(|row| &row.sync);
    let at_rest = matches!(was, Some(SyncMark::NotStarted | SyncMark::Failed(_)));
    demand("I15", asked && at_rest && at == seen.now.wall, || {
        format!("{change:?} while {was:?}, by {:?}", seen.input)
    })
}

/// I15: a check is made once, and finds what is there.
pub(super) fn checked(
    seen: &Seen<'_>,
    change: &EpisodeChange,
    episode: EpisodeId,
    inspection: &Inspection,
    premises: &mut Premises,
) -> Result<(), Broken> {
    premises.met("I15.checked");
    let Some(Row::Episode(old)) = seen.was(&Key::Episode(episode)) else {
        return Err(Broken { invariant: "I15", saw: format!("episode {episode} is checked and is not") });
    };
    let first = old.inspection.is_none() && old.removed_at.is_none();
    let tampered = seen.edge().past.tampered.contains(&old.key);
    let flaw = recording::flaw(old.sha256);
    let right = match inspection.doubt {
        Some(Doubt::Flaw(found)) => flaw == Some(found),
        Some(Doubt::CopyDiffers | Doubt::CopyGone) => tampered,
        Some(Doubt::MessageCountDiffers | Doubt::NoMessages) | None => flaw.is_none(),
    };
    demand("I15", first && right && inspection.at == seen.now.wall, || {
        format!("{change:?} of {old:?}, which has the flaw {flaw:?}")
    })
}

/// Whether a verdict may be the site's own: it was told to judge, nobody judged before, and it approves only what is
/// sound and as it was announced.
fn automatic(
    seen: &Seen<'_>,
    old: Option<&EpisodeRow>,
    qa: Qa,
    premises: &mut Premises,
) -> Result<bool, Broken> {
    let Some(old) = old else { return Ok(false) };
    premises.met("I15.alone");
    let told = seen.knobs.auto_approve && matches!(seen.input, Input::Object { .. } | Input::Wake);
    demand("I15", told && old.qa == Qa::Pending, || format!("the site judges {old:?} by itself"))?;
    let now = rows::episode(seen.rows, old.id).and_then(|row| row.inspection.as_ref());
    let Some(inspection) = now else {
        return Err(Broken { invariant: "I15", saw: format!("{old:?} is judged and was not checked") });
    };
    let found = inspection.facts.as_ref().map(|facts| facts.messages);
    let counted = old.messages.is_none_or(|announced| announced == 0 || found == Some(announced));
    let any = found.is_some_and(|messages| messages > 0);
    let sound = recording::flaw(old.sha256).is_none() && counted && any;
    match qa {
        Qa::Approved => {
            demand("I15", sound, || format!("the site approves {old:?} by itself: {inspection:?}"))?;
        }
        Qa::NeedsInspection => {
            let tampered = seen.edge().past.tampered.contains(&old.key);
            demand("I15", !sound || tampered, || format!("{old:?} is put aside: {inspection:?}"))?;
        }
        Qa::Pending | Qa::InspectorApproved | Qa::Rejected => return Ok(false),
    }
    Ok(true)
}
