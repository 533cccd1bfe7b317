//! Whom a rule believes, and which secrets the host adds to its requests.
//!
//! Roots can only be narrowed, and "another set of roots" is not narrower than the public one: whoever may speak for an upstream under
//! the one may not under the other. So what the ask names is what holds, the other two may only agree, and a bundle of certificates has to
//! be known to both of them: each defines it or names it at the origins it allows, and certificates must be in every definition.

use super::{Layer, Work};
use crate::grant::{HttpRule, Injection, Roots};
use crate::pem::certificates;
use crate::schema::{Document, NetHttpSection};
use std::collections::{BTreeMap, BTreeSet};

/// Why a rule's roots do not hold: the layer that does not agree, and what to write there.
pub(super) struct Unbelieved {
    pub(super) by: Layer,
    pub(super) line: String,
}

/// The roots of a rule. `meeting` are the sections of the upper two that have a say about its origins.
pub(super) fn roots(
    wanted: &NetHttpSection,
    meeting: [(Layer, &Document, &[&NetHttpSection]); 2],
) -> Result<Roots, Unbelieved> {
    let asked = named(wanted).cloned().unwrap_or_default();
    for (by, document, sections) in meeting {
        if sections
            .iter()
            .filter_map(|s| named(s))
            .any(|roots| *roots != asked)
        {
            let line = format!("write: tls = {{ roots = \"{asked}\" }}, or leave it out");
            return Err(Unbelieved { by, line });
        }
        let Roots::Bundle(name) = &asked else {
            continue;
        };
        let consents = document.bundles.contains_key(name) || sections.iter().any(|s| named(s).is_some());
        if !consents {
            let line = format!(
                "add: tls = {{ roots = \"{asked}\" }} to what allows the origins, or [bundles] {name} = '''…'''"
            );
            return Err(Unbelieved { by, line });
        }
    }
    if let Roots::Bundle(name) = &asked
        && bundle(name, meeting.map(|(_, document, _)| document)).is_none()
    {
        let line =
            format!("add: [bundles] {name} = '''…''' with a certificate that every definition of it holds");
        return Err(Unbelieved {
            by: Layer::Device,
            line,
        });
    }
    Ok(asked)
}

fn named(section: &NetHttpSection) -> Option<&Roots> {
    section.tls.as_ref().and_then(|tls| tls.roots.as_ref())
}

/// The certificates of a bundle that all who define it define. `None`: nobody does, or there is none.
fn bundle(name: &str, documents: [&Document; 2]) -> Option<Vec<String>> {
    let defined = documents
        .into_iter()
        .filter_map(|document| document.bundles.get(name));
    let sets = defined.map(|pem| {
        certificates(pem)
            .into_iter()
            .flatten()
            .collect::<BTreeSet<String>>()
    });
    let common = sets.reduce(|a, b| a.intersection(&b).cloned().collect())?;
    (!common.is_empty()).then(|| common.into_iter().collect())
}

impl Work<'_> {
    /// The bundles that granted rules name.
    pub(super) fn bundles(&self, rules: &[HttpRule]) -> BTreeMap<String, Vec<String>> {
        let documents = [&self.fleet.document, &self.device.document];
        let named = rules.iter().filter_map(|rule| match &rule.roots {
            Roots::Bundle(name) => Some(name),
            Roots::Public => None,
        });
        named
            .filter_map(|name| Some((name.clone(), bundle(name, documents)?)))
            .collect()
    }

    /// Secrets that the fleet lets the publisher use and the device has, at rules that are granted.
    pub(super) fn secrets(&mut self, rules: &[HttpRule]) -> Vec<Injection> {
        let Some(wanted) = &self.ask.document.secrets else {
            return Vec::new();
        };
        let mut granted = Vec::new();
        for inject in &wanted.inject {
            let whole = format!("{}/{}", self.ask.name.publisher(), inject.secret);
            let fleet = self.fleet.document.secrets.as_ref();
            let device = self.device.document.secrets.as_ref();
            let refused = if !fleet.is_some_and(|section| section.uses.contains(&whole)) {
                Some((Layer::Fleet, format!("add: [secrets] use = [{whole:?}]")))
            } else if !device.is_some_and(|section| section.files.contains_key(&whole)) {
                let line = format!(
                    "add: [secrets] files = {{ {whole:?} = \"/etc/redan/secrets/{}\" }}",
                    inject.secret
                );
                Some((Layer::Device, line))
            } else {
                None
            };
            if let Some((by, line)) = refused {
                self.drop("secrets", &inject.secret, by, line, wanted.required);
            } else if rules.iter().any(|rule| rule.id == inject.net) {
                granted.push(Injection {
                    secret: inject.secret.clone(),
                    net: inject.net.clone(),
                    header: inject.header.clone(),
                });
            }
        }
        granted
    }
}
