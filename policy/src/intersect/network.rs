//! Where a workload may connect to.
//!
//! A layer's sections count when their origins meet those that are left. Of several, origins add up and everything else
//! must hold together: so no method, path or budget of one section leaks to the origins of another.

use super::amounts::{budget, tightest_budget};
use super::outside::{Unbelieved, roots};
use super::{Layer, Work};
use crate::egress::common;
use crate::grant::{HttpRule, Origin, Roots};
use crate::schema::{Document, NetHttpSection};
use std::collections::BTreeSet;

impl Work<'_> {
    pub(super) fn net_http(&mut self) -> Vec<HttpRule> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.net.http {
            let [fleet, device] = self.above().map(|(_, document)| document.net.http.as_slice());
            let layers = [
                (Layer::Ask, std::slice::from_ref(wanted)),
                (Layer::Fleet, fleet),
                (Layer::Device, device),
            ];
            let documents = [&self.fleet.document, &self.device.document];
            match rule(wanted, layers, documents) {
                Ok(rule) => granted.push(rule),
                Err(Refused { by, line }) => self.drop("net.http", &wanted.id, by, line, wanted.required),
            }
        }
        granted
    }
}

/// The layer that leaves nothing of a rule.
struct Refused {
    by: Layer,
    /// What to change there.
    line: String,
}

/// The rule that is left of one of the ask, or the layer that leaves nothing of it.
fn rule(
    wanted: &NetHttpSection,
    layers: [(Layer, &[NetHttpSection]); 3],
    [fleet, device]: [&Document; 2],
) -> Result<HttpRule, Refused> {
    // First the origins that all layers have in common: only sections about those have a say in the rest, in whichever
    // order the layers come.
    let mut left = origins(wanted);
    let mut deny = BTreeSet::new();
    for (layer, sections) in layers {
        let allow: BTreeSet<Origin> = sections.iter().flat_map(origins).collect();
        deny.extend(
            sections
                .iter()
                .flat_map(|section| &section.deny)
                .map(|origin| origin.0.clone()),
        );
        let denied = |origin: &Origin| deny.iter().any(|d| common(d, origin).as_ref() == Some(origin));
        left = left
            .iter()
            .flat_map(|a| allow.iter().filter_map(|b| common(a, b)))
            .collect();
        let allowed = !left.is_empty();
        left.retain(|origin| !denied(origin));
        if left.is_empty() {
            let line = if allowed {
                "take the origins asked for out of `deny`".to_owned()
            } else {
                section_text(wanted)
            };
            return Err(Refused { by: layer, line });
        }
    }
    let mut rule = HttpRule {
        id: wanted.id.clone(),
        allow: Vec::new(),
        deny: deny.into_iter().collect(),
        methods: wanted.methods.iter().flatten().cloned().collect(),
        paths: Vec::new(),
        private_addresses: true,
        roots: Roots::Public,
        budget: budget(wanted.budget),
    };
    let mut budgets = vec![rule.budget];
    for (layer, sections) in layers {
        let meeting: Vec<&NetHttpSection> = sections.iter().filter(|s| meets(s, &left)).collect();
        let allow: BTreeSet<Origin> = meeting.iter().flat_map(|section| origins(section)).collect();
        rule.allow.push(allow.into_iter().collect());
        for section in meeting {
            if let Some(methods) = &section.methods {
                rule.methods.retain(|method| methods.contains(method));
            }
            rule.paths.extend(section.paths.clone());
            rule.private_addresses &= section.private_addresses;
            budgets.push(budget(section.budget));
        }
        if rule.methods.is_empty() {
            let line = section_text(wanted);
            return Err(Refused { by: layer, line });
        }
    }
    rule.budget = tightest_budget(&budgets);
    let [_, (_, above), (_, below)] = layers;
    let (above, below) = (about(above, &left), about(below, &left));
    let roots = roots(
        wanted,
        [
            (Layer::Fleet, fleet, above.as_slice()),
            (Layer::Device, device, below.as_slice()),
        ],
    );
    rule.roots = roots.map_err(|Unbelieved { by, line }| Refused { by, line })?;
    Ok(rule)
}

fn about<'a>(sections: &'a [NetHttpSection], left: &BTreeSet<Origin>) -> Vec<&'a NetHttpSection> {
    sections.iter().filter(|section| meets(section, left)).collect()
}

/// Whether a section has a say about any of the origins.
pub(crate) fn meets(section: &NetHttpSection, left: &BTreeSet<Origin>) -> bool {
    let own = origins(section);
    left.iter().any(|a| own.iter().any(|b| common(a, b).is_some()))
}

/// The origins a section allows.
pub(crate) fn origins(section: &NetHttpSection) -> BTreeSet<Origin> {
    section.allow.iter().map(|origin| origin.0.clone()).collect()
}

/// The section as another document would have to write it.
fn section_text(wanted: &NetHttpSection) -> String {
    let origins: Vec<String> = wanted.allow.iter().map(|origin| origin.0.to_string()).collect();
    let methods: Vec<&String> = wanted.methods.iter().flatten().collect();
    format!(
        "add: [[net.http]] id = {:?}, allow = {origins:?}, methods = {methods:?}",
        wanted.id
    )
}
