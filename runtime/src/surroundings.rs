//! Finds out what the site's surroundings are: how it reaches the cloud, what it runs on, which time it is there. What the
//! configuration says counts; the rest is asked of the platform, and what nobody can tell stays unknown. What follows
//! from it is for policies to say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use tidegate_core::input::Input;
use tidegate_core::policy::{DISK_UNKNOWN, Known, LinkKind, Power, Surroundings};
use tidegate_core::time::Wall;

use crate::config;
use crate::inbox::Inbox;
use crate::seam::{Blocking, Clock, Disk, Seams};

/// How often the surroundings are looked at. A policy's shortest sensible window is minutes, and so is a change of cable.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Charge in percent from which on a battery counts as nearly empty, as desktops take it.
const LOW_PERCENT: u32 = 20;

/// Looks at the surroundings of one site.
pub(crate) struct Look<S: Seams> {
    pub(crate) seams: S,
    /// A directory on the disk that is meant.
    pub(crate) dir: PathBuf,
    /// What the configuration says.
    pub(crate) said: config::Surroundings,
}

impl<S: Seams> Look<S> {
    /// Tells the core of the surroundings at once, and again whenever they are others.
    pub(crate) async fn keep_telling(self, inbox: Inbox, closed: impl Future<Output = ()>) {
        let mut told = None;
        let tell = async {
            loop {
                let (seams, dir, said) = (self.seams.clone(), self.dir.clone(), self.said.clone());
                let now = self.seams.clock().now().wall;
                let found = self.seams.blocking().run(move || look(&seams, &dir, &said, now)).await;
                if told.as_ref() != Some(&found) {
                    tracing::debug!(?found, "surroundings");
                    if inbox.input(Input::Surroundings(found.clone())).await.is_err() {
                        // The driver is gone, and the site goes after it.
                        return std::future::pending().await;
                    }
                    told = Some(found);
                }
                self.seams.clock().sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = closed => {}
            () = tell => {}
        }
    }
}

fn look<S: Seams>(seams: &S, dir: &Path, said: &config::Surroundings, now: Wall) -> Surroundings {
    let text = |path: &str| seams.system_text(Path::new(path));
    let names = |path: &str| seams.system_names(Path::new(path));
    let system = System { text: &text, names: &names };
    let zone = match &said.time_zone {
        Some(name) => zone(name),
        None => seams.local_zone(),
    };
    let disk = seams.disk();
    Surroundings {
        link: said.link.unwrap_or_else(|| system.link()),
        metered: said.metered.unwrap_or(Known::Unknown),
        power: said.power.unwrap_or_else(|| system.power()),
        // Where nobody says which time zone it is, local time is UTC.
        utc_offset_min: zone.and_then(|zone| offset_min(&zone, now)).unwrap_or(0),
        disk_free: thousandths(disk.free_bytes(dir), disk.total_bytes(dir)),
    }
}

/// A time zone by its name, or an offset such as `+02:00`.
pub(crate) fn zone(text: &str) -> Option<TimeZone> {
    let signed = text.strip_prefix('+').map(|rest| (1, rest));
    let Some((sign, rest)) = signed.or_else(|| text.strip_prefix('-').map(|rest| (-1, rest))) else {
        return TimeZone::get(text).ok();
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, most: i32| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| digits && *number <= most)
    };
    let seconds = sign * (number(hours, 14)? * 3_600 + number(minutes, 59)? * 60);
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}

/// Minutes by which the clocks of a zone are ahead of UTC at this moment, summer time included.
fn offset_min(zone: &TimeZone, now: Wall) -> Option<i16> {
    let at = Timestamp::from_millisecond(now.0).ok()?;
    i16::try_from(zone.to_offset(at).seconds() / 60).ok()
}

fn thousandths(free: Option<u64>, total: Option<u64>) -> u16 {
    let (Some(free), Some(total)) = (free, total.filter(|total| *total > 0)) else { return DISK_UNKNOWN };
    let share = u128::from(free.min(total)) * 1_000 / u128::from(total);
    u16::try_from(share).unwrap_or(DISK_UNKNOWN)
}

/// What a Linux kernel tells of the machine in small files.
struct System<'a> {
    text: &'a dyn Fn(&str) -> Option<String>,
    names: &'a dyn Fn(&str) -> Vec<String>,
}

impl System<'_> {
    fn word(&self, path: &str) -> Option<String> {
        (self.text)(path).map(|text| text.trim().to_owned())
    }

    /// The kind of the interface that the default route leaves by.
    fn link(&self) -> LinkKind {
        let (v4, v6) = ((self.text)("/proc/net/route"), (self.text)("/proc/net/ipv6_route"));
        if v4.is_none() && v6.is_none() {
            return LinkKind::Unknown;
        }
        let way = v4.as_deref().and_then(way_v4).or_else(|| v6.as_deref().and_then(way_v6));
        way.map_or(LinkKind::None, |interface| self.interface(interface))
    }

    fn interface(&self, name: &str) -> LinkKind {
        // The name stands in a path, and a kernel lets it hold nearly anything.
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            || name.starts_with('.')
        {
            return LinkKind::Unknown;
        }
        let folder = format!("/sys/class/net/{name}");
        let about = (self.names)(&folder);
        let has = |entry: &str| about.iter().any(|name| name == entry);
        let event = (self.text)(&format!("{folder}/uevent")).unwrap_or_default();
        let is = |kind: &str| event.lines().any(|line| line.strip_prefix("DEVTYPE=") == Some(kind));
        if has("wireless") || has("phy80211") || is("wlan") {
            return LinkKind::Wifi;
        }
        if is("wwan") || name.starts_with("wwan") || name.starts_with("rmnet") {
            return LinkKind::Cellular;
        }
        // Type 1 is Ethernet. Without a device behind it the interface is a bridge, a tunnel or a container's: the way
        // out lies elsewhere, and what it is nobody here can tell.
        let is_ethernet = self.word(&format!("{folder}/type")).as_deref() == Some("1");
        if is_ethernet && has("device") { LinkKind::Ethernet } else { LinkKind::Unknown }
    }

    fn power(&self) -> Power {
        let (mut mains, mut battery) = (None, None);
        for name in (self.names)("/sys/class/power_supply") {
            let word = |file: &str| self.word(&format!("/sys/class/power_supply/{name}/{file}"));
            match word("type").as_deref() {
                Some("Mains" | "USB") => {
                    let online = word("online").is_some_and(|online| online != "0");
                    mains = Some(mains.unwrap_or(false) || online);
                }
                // One that belongs to a mouse or a headset says so.
                Some("Battery" | "UPS") if word("scope").as_deref() != Some("Device") => {
                    let drains = word("status").as_deref() == Some("Discharging");
                    let percent = word("capacity").and_then(|percent| percent.parse::<u32>().ok());
                    let level = word("capacity_level");
                    let low = percent.is_some_and(|percent| percent <= LOW_PERCENT)
                        || matches!(level.as_deref(), Some("Low" | "Critical"));
                    battery = Some(match (drains, low) {
                        (false, _) => Power::Mains,
                        (true, false) => Power::Battery,
                        (true, true) => Power::BatteryLow,
                    });
                }
                _ => {}
            }
        }
        match (mains, battery) {
            (Some(true), _) => Power::Mains,
            (_, Some(power)) => power,
            (Some(false) | None, None) => Power::Unknown,
        }
    }
}

/// The interface of the default route with the smallest metric, of `/proc/net/route`.
fn way_v4(table: &str) -> Option<&str> {
    let metric = |line: &str| -> Option<u32> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, _, flags, _, _, metric, mask, ..] = fields[..] else { return None };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        let everywhere = destination == "00000000" && mask == "00000000";
        (up && everywhere).then(|| metric.parse().unwrap_or(u32::MAX))
    };
    let best = table.lines().filter_map(|line| Some((metric(line)?, line))).min_by_key(|(metric, _)| *metric);
    best.and_then(|(_, line)| line.split_whitespace().next())
}

/// The same of `/proc/net/ipv6_route`, whose metric is hexadecimal and whose last field is the interface.
fn way_v6(table: &str) -> Option<&str> {
    let metric = |line: &str| -> Option<u32> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, bits, _, _, _, metric, _, _, _, name] = fields[..] else { return None };
        let everywhere = destination.bytes().all(|b| b == b'0') && bits == "00" && name != "lo";
        everywhere.then(|| u32::from_str_radix(metric, 16).unwrap_or(u32::MAX))
    };
    let best = table.lines().filter_map(|line| Some((metric(line)?, line))).min_by_key(|(metric, _)| *metric);
    best.and_then(|(_, line)| line.split_whitespace().last())
}

#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    fn with<T>(files: &[(&str, &str)], ask: impl Fn(&System<'_>) -> T) -> T {
        let files: BTreeMap<String, String> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let text = |path: &str| files.get(path).cloned();
        let names = |path: &str| {
            let below = files.keys().filter_map(|file| file.strip_prefix(path)?.strip_prefix('/'));
            let mut names: Vec<String> =
                below.map(|rest| rest.split('/').next().unwrap().to_owned()).collect();
            names.dedup();
            names
        };
        ask(&System { text: &text, names: &names })
    }

    fn route(interface: &str, metric: u32) -> String {
        format!("{interface}\t00000000\t0102A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n")
    }

    #[test]
    fn the_link_is_the_interface_of_the_default_route_with_the_smallest_metric() {
        let local = "wlan0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let both = format!("{HEAD}{local}{}{}", route("wlan0", 600), route("enp3s0", 100));
        let wifi = format!("{HEAD}{}", route("wlan0", 600));
        let kinds = [
            ("/sys/class/net/wlan0/phy80211/name", "phy0"),
            ("/sys/class/net/wlan0/type", "1\n"),
            ("/sys/class/net/enp3s0/type", "1\n"),
            ("/sys/class/net/enp3s0/device/vendor", "0x8086"),
            ("/sys/class/net/wwp0s20/uevent", "DEVTYPE=wwan\nINTERFACE=wwp0s20\n"),
            ("/sys/class/net/eth0/type", "1\n"),
        ];
        let link = |table: &str| {
            let mut files = kinds.to_vec();
            files.push(("/proc/net/route", table));
            with(&files, |system| system.link())
        };
        assert_eq!(link(&both), LinkKind::Ethernet);
        assert_eq!(link(&wifi), LinkKind::Wifi);
        assert_eq!(link(&format!("{HEAD}{}", route("wwp0s20", 0))), LinkKind::Cellular);
        assert_eq!(link(&format!("{HEAD}{}", route("eth0", 0))), LinkKind::Unknown, "a container's");
        assert_eq!(link(&format!("{HEAD}{}", route("../../etc", 0))), LinkKind::Unknown);
        assert_eq!(link(&format!("{HEAD}{local}")), LinkKind::None);
        assert_eq!(link("nonsense\n\n"), LinkKind::None);
        assert_eq!(with(&kinds, |system| system.link()), LinkKind::Unknown, "no such table on this platform");
    }

    #[test]
    fn a_way_out_of_ipv6_alone_counts() {
        let zero = "0".repeat(32);
        let lo = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n");
        let way = format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003 wlan0\n");
        let files = |table| [("/proc/net/ipv6_route", table), ("/sys/class/net/wlan0/wireless/x", "")];
        let both = format!("{lo}{way}");
        assert_eq!(with(&files(&both), |system| system.link()), LinkKind::Wifi);
        assert_eq!(with(&files(&lo), |system| system.link()), LinkKind::None);
    }

    #[test]
    fn power_is_the_mains_if_they_are_on_and_else_what_the_battery_says() {
        let power = |files: &[(&str, &str)]| {
            let whole: Vec<(String, &str)> =
                files.iter().map(|(path, text)| (format!("/sys/class/power_supply/{path}"), *text)).collect();
            let files: Vec<(&str, &str)> = whole.iter().map(|(path, text)| (path.as_str(), *text)).collect();
            with(&files, |system| system.power())
        };
        let draining = [("BAT0/type", "Battery\n"), ("BAT0/status", "Discharging\n")];
        let of = |more: &[(&'static str, &'static str)]| [&draining[..], more].concat();
        assert_eq!(power(&of(&[("AC/type", "Mains"), ("AC/online", "1")])), Power::Mains);
        assert_eq!(power(&of(&[("AC/type", "Mains"), ("AC/online", "0")])), Power::Battery);
        assert_eq!(power(&of(&[("BAT0/capacity", "21")])), Power::Battery);
        assert_eq!(power(&of(&[("BAT0/capacity", "20")])), Power::BatteryLow);
        assert_eq!(power(&of(&[("BAT0/capacity_level", "Critical")])), Power::BatteryLow);
        assert_eq!(power(&[("BAT0/type", "Battery"), ("BAT0/status", "Full")]), Power::Mains);
        assert_eq!(power(&of(&[("BAT0/scope", "Device")])), Power::Unknown, "a mouse");
        assert_eq!(power(&[]), Power::Unknown);
    }

    #[test]
    fn a_zone_is_a_name_or_an_offset_and_follows_summer_time() {
        let at = |text: &str| Wall(text.parse::<Timestamp>().unwrap().as_millisecond());
        let winter = at("2026-01-15T12:00:00Z");
        for (text, minutes) in [("+02:00", 120), ("-03:30", -210), ("+00:00", 0), ("UTC", 0)] {
            assert_eq!(offset_min(&zone(text).unwrap(), winter), Some(minutes), "{text}");
        }
        for text in ["", "+2", "+02:60", "+15:00", "02:00", "+02:00:00", "Nowhere/Land", "+-2:00"] {
            assert!(zone(text).is_none(), "{text}");
        }
        // What a machine without a database of time zones cannot know it says: `zone` is `None` there.
        if let Some(berlin) = zone("Europe/Berlin") {
            assert_eq!(offset_min(&berlin, winter), Some(60));
            assert_eq!(offset_min(&berlin, at("2026-07-15T12:00:00Z")), Some(120));
        }
    }

    #[test]
    fn free_space_is_a_share_and_unknown_where_nobody_measures_it() {
        assert_eq!(thousandths(Some(250), Some(1_000)), 250);
        assert_eq!(thousandths(Some(u64::MAX), Some(u64::MAX)), 1_000);
        assert_eq!(thousandths(Some(9), Some(3)), 1_000);
        assert_eq!(thousandths(None, Some(1)), DISK_UNKNOWN);
        assert_eq!(thousandths(Some(1), None), DISK_UNKNOWN);
        assert_eq!(thousandths(Some(1), Some(0)), DISK_UNKNOWN);
    }
}
