//! The metrics of policies: who decided what, how long it took, what went wrong. Labels are bounded: five slots, as many
//! modules as are counted at once, and the words of their reasons.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tidegate_core::digest::Sha256;
use tidegate_core::policy::PolicyView;
use tidegate_policies::{Figures, Histogram};

use super::gauge;
use crate::api::shapes::short;
use crate::policies::Clamps;

type Out<'a, 'b> = &'a mut DescriptorEncoder<'b>;

/// Writes all of them.
pub(super) fn encode(
    out: Out<'_, '_>,
    figures: &Figures,
    clamps: &Clamps,
    view: Option<&PolicyView>,
) -> fmt::Result {
    let seats = || {
        figures.seats.iter().map(|((slot, module), seat)| (slot.name(), label(*module), by(*module), seat))
    };
    let mut family =
        Family::of(out, "policy_decisions", "Decisions by slot, module and reason", MetricType::Counter)?;
    for (slot, module, by, seat) in seats() {
        for (reason, count) in &seat.reasons {
            let labels = [("slot", slot), ("module", &module), ("reason", reason), ("by", by)];
            family.counter(&labels, *count)?;
        }
    }
    let text = "Questions that a module did not answer; the built-in rules decided in its place";
    let mut family = Family::of(out, "policy_faults", text, MetricType::Counter)?;
    for (slot, module, _, seat) in seats() {
        for (kind, count) in &seat.faults {
            family.counter(&[("slot", slot), ("module", &module), ("kind", kind)], *count)?;
        }
    }
    let text = "Decisions that were not obeyed to the letter because they were out of bounds";
    let mut family = Family::of(out, "policy_clamps", text, MetricType::Counter)?;
    for ((slot, module), count) in clamps {
        family.counter(&[("slot", slot.name()), ("module", &label(*module))], *count)?;
    }
    let mut family = Family::of(out, "policy_fuel", "Fuel of decisions of modules", MetricType::Histogram)?;
    for (slot, module, _, seat) in seats().filter(|(_, module, _, _)| !module.is_empty()) {
        family.histogram(&[("slot", slot), ("module", &module)], &seat.fuel, 1.0)?;
    }
    let mut family =
        Family::of(out, "policy_seconds", "Time of decisions of modules", MetricType::Histogram)?;
    for (slot, module, _, seat) in seats().filter(|(_, module, _, _)| !module.is_empty()) {
        family.histogram(&[("slot", slot), ("module", &module)], &seat.micros, 1e-6)?;
    }
    if let Some(shadow) = &figures.shadow {
        let module = label(Some(shadow.module));
        let labels = [("slot", shadow.slot.name()), ("module", module.as_str())];
        let text = "Decisions that a module beside the set was asked as well";
        Family::of(out, "policy_shadow_compared", text, MetricType::Counter)?
            .counter(&labels, shadow.decisions)?;
        let text = "Of those, decisions after which the site would have acted differently";
        Family::of(out, "policy_shadow_differed", text, MetricType::Counter)?
            .counter(&labels, shadow.different)?;
    }
    if let Some(view) = view {
        gauge(out, "policy_generation", "Changes of the set of policies so far", view.generation)?;
        let count = view.modules.iter().filter(|(_, row)| row.quarantined.is_some()).count();
        gauge(out, "policy_quarantined", "Modules that may not be used", count as u64)?;
    }
    Ok(())
}

fn label(module: Option<Sha256>) -> String {
    module.map(short).unwrap_or_default()
}

fn by(module: Option<Sha256>) -> &'static str {
    if module.is_some() { "module" } else { "builtin" }
}

/// One metric with labels.
struct Family<'a>(prometheus_client::encoding::MetricEncoder<'a>);

impl<'a> Family<'a> {
    fn of(
        out: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        text: &'a str,
        kind: MetricType,
    ) -> Result<Family<'a>, fmt::Error> {
        Ok(Family(out.encode_descriptor(name, text, None, kind)?))
    }

    fn counter<const N: usize>(&mut self, labels: &[(&str, &str); N], value: u64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// `unit` is what the values are multiplied by.
    fn histogram<const N: usize>(
        &mut self,
        labels: &[(&str, &str); N],
        of: &Histogram,
        unit: f64,
    ) -> fmt::Result {
        let bounds = of.bounds.iter().map(|bound| *bound as f64 * unit).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(of.counts.iter().copied()).collect();
        let sum = of.sum as f64 * unit;
        self.0.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, of.count(), &buckets, None)
    }
}
