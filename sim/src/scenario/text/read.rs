//! Steps and faults from their fields. One place per act and per fault; the writer mirrors it.

use std::time::Duration;

use super::Names;
use tidegate_core::policy::{Known, Slot};

use super::line::Line;
use super::words::Word;
use crate::scenario::{Act, Fault, FaultSpec, Lasts, Lie, Recording, Step, Sync, Way, When};

type Read<T> = Result<T, String>;

/// A step.
pub(super) fn step(line: &mut Line<'_>) -> Read<Step> {
    let at = line.span("at")?;
    let word = line.word("act")?;
    let act = match word.as_str() {
        "record" => Act::Record(Recording {
            device: line.device()?,
            task: line.word("task")?,
            bytes: line.size("bytes")?,
            lasts: line.time("lasts")?.unwrap_or(Duration::from_secs(10)),
            bare: line.flag("bare", false)?,
            pause: line.flag("pause", false)?,
            approve: line.flag("approve", true)?,
            sync: line.maybe("sync")?.unwrap_or(Sync::Named),
        }),
        "create" => Act::Create {
            device: line.device()?,
            task: line.word("task")?,
            config: line.flag("config", false)?,
        },
        "command" => {
            Act::Command { device: line.device()?, action: line.one("action")?, task: line.text("task")? }
        }
        "cancel" => Act::Cancel { task: line.word("task")?, site: line.site()? },
        "judge" => {
            Act::Judge { task: line.word("task")?, site: line.site()?, approve: line.flag("approve", true)? }
        }
        "sync" => Act::Sync { task: line.text("task")?, site: line.site()? },
        "refresh" => Act::Refresh { device: line.device()?, max_age: line.span("max_age")? },
        "restart" => Act::Restart { site: line.site()?, destination: line.flag("destination", true)? },
        "stop-recorder" => Act::StopRecorder { device: line.device()? },
        "restart-uploader" => Act::RestartUploader { device: line.device()? },
        "local" => Act::Local { device: line.device()?, deed: line.one("deed")? },
        "resolve" => Act::Resolve { device: line.device()?, how: line.one("how")?, task: line.text("task")? },
        "policy" => Act::Policy {
            site: line.site()?,
            deed: line.one("deed")?,
            slot: slot(line)?,
            module: line.module()?,
        },
        other => return Err(format!("act = {other:?} must be one of {ACTS}")),
    };
    Ok(Step { at, act })
}

const ACTS: &str = "record, create, command, cancel, judge, sync, refresh, restart, stop-recorder, restart-uploader, local, resolve, \
     policy";

/// The hook that a line is about; the one that is asked most if it names none.
fn slot(line: &mut Line<'_>) -> Read<Slot> {
    Ok(line.maybe("slot")?.unwrap_or(Slot::Concurrency))
}

/// A fault.
pub(super) fn fault(line: &mut Line<'_>, names: &Names<'_>) -> Read<FaultSpec> {
    let when = when(&line.word("at")?, names)?;
    let lasts = line.text("lasts")?;
    let word = line.word("fault")?;
    let fault = what(line, &word)?;
    let lasts = match lasts.as_deref() {
        Some("chaos") => Lasts::Chaos,
        Some("forever") => Lasts::Forever,
        Some(span) => Lasts::For(crate::time::parse(span).map_err(|why| format!("lasts: {why}"))?),
        None if fault.is_momentary() => Lasts::For(Duration::ZERO),
        None => return Err("lasts is missing: a duration, \"chaos\" or \"forever\"".to_string()),
    };
    Ok(FaultSpec { when, lasts, fault })
}

/// `3m20s`, `north commit 7 durable`, `north object 3 applied` or `north policy 2 asked`.
fn when(text: &str, names: &Names<'_>) -> Read<When> {
    let bad = |why: String| {
        format!(
            "at = {text:?} must be like \"3m20s\", \"north commit 7 durable\" or \"north object 3 asked\": {why}"
        )
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [span] => crate::time::parse(span).map(When::At).map_err(bad),
        [site, kind, n, point] => {
            let site = names.site(site)?;
            let n = n.parse().map_err(|_| bad(format!("{n:?} is no number")))?;
            match kind {
                "commit" => Ok(When::Commit { site, n, point: Word::from_word(point).map_err(bad)? }),
                "object" => Ok(When::Object { site, n, point: Word::from_word(point).map_err(bad)? }),
                "policy" => Ok(When::Policy { site, n, point: Word::from_word(point).map_err(bad)? }),
                _ => Err(bad(format!("{kind:?} is neither commit, object nor policy"))),
            }
        }
        _ => Err(bad("one word or four".to_string())),
    }
}

fn what(line: &mut Line<'_>, word: &str) -> Read<Fault> {
    Ok(match word {
        "slow" => Fault::Slow { path: line.path()?, by: line.span("by")? },
        "hold" => Fault::Hold { path: line.path()? },
        "cut" => Fault::Cut { path: line.path()?, way: line.maybe("way")?.unwrap_or(Way::Both) },
        "reset" => Fault::Reset { path: line.path()? },
        "refuse" => Fault::Refuse { path: line.path()? },
        "replay" => {
            Fault::Replay { device: line.device()?, role: line.one("role")?, count: line.number("count")? }
        }
        "kill" => Fault::Kill { site: line.site()?, keep: line.one("keep")?, down: line.span("down")? },
        "power-loss" => {
            Fault::PowerLoss { site: line.site()?, keep: line.one("keep")?, down: line.span("down")? }
        }
        "pause" => Fault::Pause { site: line.site()? },
        "step" => Fault::Step { site: line.site()?, by_ms: line.step("by")? },
        "drift" => Fault::Drift { site: line.site()?, ppm: line.number("ppm")? },
        "disk-fails" => Fault::DiskFails { site: line.site()?, down: line.span("down")? },
        "disk-slow" => Fault::DiskSlow { site: line.site()?, by: line.span("by")? },
        "outage" => Fault::Outage { store: line.store()? },
        "throttle" => Fault::Throttle { store: line.store()?, permille: line.number("permille")? },
        "broken" => Fault::Broken { store: line.store()?, permille: line.number("permille")? },
        "misrouted" => Fault::Misrouted { store: line.store()?, permille: line.number("permille")? },
        "expired" => Fault::Expired { store: line.store()? },
        "skewed" => Fault::Skewed { store: line.store()? },
        "lose-answers" => Fault::LoseAnswers {
            store: line.store()?,
            ops: line.one("ops")?,
            permille: line.number("permille")?,
        },
        "lose-requests" => Fault::LoseRequests {
            store: line.store()?,
            ops: line.one("ops")?,
            permille: line.number("permille")?,
        },
        "lifecycle" => Fault::Lifecycle { store: line.store()? },
        "overwrite" => Fault::Overwrite { store: line.store()?, task: line.word("task")? },
        "copy" => Fault::Copy { store: line.store()?, task: line.word("task")? },
        "delete" => Fault::Delete { store: line.store()?, task: line.word("task")? },
        "power-off" => Fault::PowerOff { device: line.device()? },
        "crash" => Fault::Crash { device: line.device()?, role: line.one("role")? },
        "twin" => Fault::Twin {
            device: line.device()?,
            role: line.one("role")?,
            same_address: line.flag("same_address", false)?,
        },
        "sulk" => Fault::Sulk { device: line.device()?, role: line.one("role")? },
        "lose-callbacks" => Fault::LoseCallbacks { device: line.device()? },
        "lie" => Fault::Lie { device: line.device()?, lie: line.one::<Lie>("lie")? },
        "install" => Fault::Install {
            site: line.site()?,
            slot: slot(line)?,
            module: line.module()?.ok_or("module is missing: for instance \"trap-3\"")?,
        },
        "swap-storm" => {
            Fault::SwapStorm { site: line.site()?, slot: slot(line)?, every: line.span("every")? }
        }
        "rot" => Fault::Rot { site: line.site()?, slot: slot(line)? },
        "host-slow" => {
            Fault::HostSlow { site: line.site()?, by: line.span("by")?, permille: line.number("permille")? }
        }
        "surroundings" => Fault::Surroundings {
            site: line.site()?,
            link: line.one("link")?,
            metered: line.maybe("metered")?.unwrap_or(Known::Unknown),
        },
        other => return Err(format!("fault = {other:?} must be one of {FAULTS}")),
    })
}

const FAULTS: &str = "slow, hold, cut, reset, refuse, replay, kill, power-loss, pause, step, drift, disk-fails, disk-slow, \
                      outage, throttle, broken, expired, skewed, lose-answers, lose-requests, lifecycle, overwrite, \
                      delete, power-off, crash, twin, sulk, lose-callbacks, lie, install, swap-storm, rot, host-slow, \
                      surroundings";
