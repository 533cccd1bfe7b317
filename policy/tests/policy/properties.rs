//! What holds for all documents: a grant is never wider than any of the three, whichever of the upper two says it.
//!
//! The oracle reads the generated description, not the parsed documents, so it shares no code with what it checks.

use crate::documents::{ask, device, fleet};
use proptest::prelude::{
    ProptestConfig, Strategy as Generator, TestCaseError, any, prop_assert, prop_assert_eq, proptest,
};
use redan_policy::egress::admits;
use redan_policy::grant::{EffectiveGrant, Mode, Rate, Strategy};
use redan_policy::intersect;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const HOSTS: &[&str] = &["a.example", "b.example", "x.a.example", "y.x.a.example"];
const PATTERNS: &[&str] = &[
    "a.example",
    "b.example",
    "x.a.example",
    "*.example",
    "*.a.example",
    "*.x.a.example",
];
const ROOTS: &[&str] = &["webpki", "bundle:b0", "bundle:b0", "bundle:b1"];
const METHODS: &[&str] = &["GET", "POST", "PUT"];
const PATHS: &[(&str, &str)] = &[
    ("/v1", "/v1"),
    ("/v1/*", "/v1/r"),
    ("/v1/...", "/v1/r/s"),
    ("/...", "/other"),
];

#[derive(Clone, Debug)]
struct Net {
    allow: BTreeSet<usize>,
    deny: BTreeSet<usize>,
    methods: BTreeSet<usize>,
    paths: Option<BTreeSet<usize>>,
    private: bool,
    requests: Option<(u64, u64)>,
    /// As it is written.
    roots: Option<&'static str>,
}

/// Whose document it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Ask,
    Fleet,
    Device,
}

#[derive(Clone, Debug)]
struct Body {
    net: Vec<Net>,
    volume: Option<(bool, Option<u64>)>,
    bucket: Option<u32>,
    config: Option<BTreeSet<u8>>,
    clock: Option<(bool, u64)>,
    memory: Option<u64>,
    handles: Option<u32>,
    get: bool,
    /// Certificates of each bundle that is defined.
    bundles: BTreeMap<usize, BTreeSet<usize>>,
    secrets: BTreeSet<u8>,
    stop_start: Option<bool>,
}

fn set(of: usize, least: usize) -> impl Generator<Value = BTreeSet<usize>> {
    proptest::collection::btree_set(0..of, least..=of)
}

fn net() -> impl Generator<Value = Net> {
    (
        set(PATTERNS.len(), 1),
        proptest::collection::btree_set(0..PATTERNS.len(), 0..2),
        set(METHODS.len(), 1),
        proptest::option::of(set(PATHS.len(), 1)),
        any::<bool>(),
        proptest::option::of((0_u64..500, 1_u64..100)),
        proptest::option::weighted(0.4, proptest::sample::select(ROOTS)),
    )
        .prop_map(|(allow, deny, methods, paths, private, requests, roots)| Net {
            allow,
            deny,
            methods,
            paths,
            private,
            requests,
            roots,
        })
}

fn body() -> impl Generator<Value = Body> {
    (
        proptest::collection::vec(net(), 0..3),
        proptest::option::of((any::<bool>(), proptest::option::of(1_u64..100))),
        proptest::option::of(1_u32..100),
        proptest::option::of(proptest::collection::btree_set(0_u8..4, 0..4)),
        proptest::option::of((any::<bool>(), 1_u64..50)),
        proptest::option::of(1_u64..100),
        proptest::option::of(1_u32..100),
        any::<bool>(),
        (
            proptest::collection::btree_map(0_usize..2, set(3, 1), 0..3),
            proptest::collection::btree_set(0_u8..3, 0..3),
            proptest::option::of(any::<bool>()),
        ),
    )
        .prop_map(
            |(net, volume, bucket, config, clock, memory, handles, get, (bundles, secrets, stop_start))| {
                Body {
                    net,
                    volume,
                    bucket,
                    config,
                    clock,
                    memory,
                    handles,
                    get,
                    bundles,
                    secrets,
                    stop_start,
                }
            },
        )
}

fn quoted(items: impl Iterator<Item = String>) -> String {
    format!(
        "[{}]",
        items
            .map(|item| format!("{item:?}"))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

fn origins(of: &BTreeSet<usize>) -> String {
    quoted(of.iter().map(|i| format!("https://{}", PATTERNS[*i])))
}

fn certificate(number: usize) -> String {
    format!("MIIB{}", number.to_string().repeat(8))
}

fn outside(t: &mut String, body: &Body, who: Who) {
    let names: Vec<String> = body.secrets.iter().map(|s| format!("s{s}")).collect();
    match who {
        Who::Ask => {
            // To the first rule, if there is one.
            let used = if body.net.is_empty() { &[][..] } else { &names[..] };
            let inject = used
                .iter()
                .map(|name| format!("{{ secret = {name:?}, net = \"n0\", header = \"x-{name}\" }}"));
            let inject: Vec<String> = inject.collect();
            writeln!(t, "[secrets]\nuse = {}", quoted(used.iter().cloned())).unwrap();
            writeln!(t, "inject = [{}]", inject.join(", ")).unwrap();
            return;
        }
        Who::Fleet => {
            let whole = names.iter().map(|name| format!("acme/{name}"));
            writeln!(t, "[secrets]\nuse = {}", quoted(whole)).unwrap();
        }
        Who::Device => {
            let files: Vec<String> = names
                .iter()
                .map(|name| format!("\"acme/{name}\" = \"/s/{name}\""))
                .collect();
            writeln!(t, "[secrets]\nfiles = {{ {} }}", files.join(", ")).unwrap();
        }
    }
    writeln!(t, "[bundles]").unwrap();
    for (name, certificates) in &body.bundles {
        let pem = certificates
            .iter()
            .map(|c| redan_policy::pem::text(&certificate(*c)));
        writeln!(t, "b{name} = \"\"\"{}\"\"\"", pem.collect::<String>()).unwrap();
    }
}

fn toml(body: &Body, who: Who) -> String {
    let is_ask = who == Who::Ask;
    let mut t = String::new();
    for (i, n) in body.net.iter().enumerate() {
        let methods = quoted(n.methods.iter().map(|m| METHODS[*m].to_owned()));
        writeln!(
            t,
            "[[net.http]]\nid = \"n{i}\"\nallow = {}\ndeny = {}",
            origins(&n.allow),
            origins(&n.deny)
        )
        .unwrap();
        writeln!(t, "methods = {methods}\nprivate_addresses = {}", n.private).unwrap();
        if let Some(paths) = &n.paths {
            writeln!(
                t,
                "paths = {}",
                quoted(paths.iter().map(|p| PATHS[*p].0.to_owned()))
            )
            .unwrap();
        }
        if let Some(roots) = n.roots {
            writeln!(t, "tls = {{ roots = {roots:?} }}").unwrap();
        }
        if let Some((amount, seconds)) = n.requests {
            writeln!(t, "budget = {{ requests = \"{amount}/{seconds}s\" }}").unwrap();
        }
    }
    if let Some((write, bytes)) = body.volume {
        writeln!(
            t,
            "[[fs]]\nname = \"state\"\nmode = \"{}\"",
            if write { "rw" } else { "ro" }
        )
        .unwrap();
        if let Some(bytes) = bytes {
            writeln!(t, "quota = {{ bytes = \"{bytes}KiB\" }}").unwrap();
        }
    }
    if let Some(keys) = body.bucket {
        writeln!(t, "[[kv]]\nlabel = \"default\"").unwrap();
        writeln!(t, "quota = {{ keys = {keys} }}").unwrap();
    }
    if let Some(keys) = &body.config {
        let names = quoted(keys.iter().map(|k| format!("k{k}")));
        writeln!(t, "[config]\nkeys = {names}").unwrap();
        if !is_ask {
            let values: Vec<String> = keys.iter().map(|k| format!("k{k} = \"v\"")).collect();
            writeln!(t, "values = {{ {} }}", values.join(", ")).unwrap();
        }
    }
    if let Some((wall, resolution)) = body.clock {
        writeln!(t, "[clock]\nwall = {wall}\nresolution = \"{resolution}ms\"").unwrap();
    }
    writeln!(
        t,
        "[[trigger.http]]\nroute = \"/...\"\nmethods = [{}\"POST\"]",
        if body.get { "\"GET\", " } else { "" }
    )
    .unwrap();
    writeln!(t, "[limits]").unwrap();
    if let Some(memory) = body.memory {
        writeln!(t, "memory_total = \"{memory}MiB\"").unwrap();
    }
    if let Some(handles) = body.handles {
        writeln!(t, "handles = {handles}").unwrap();
    }
    if let Some(stops) = body.stop_start {
        let strategy = if stops { "stop-start" } else { "swap" };
        writeln!(t, "[upgrade]\nstrategy = \"{strategy}\"").unwrap();
    }
    outside(&mut t, body, who);
    t
}

/// Whether a pattern such as `*.a.example` is about a host.
fn about(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(tail) => host.ends_with(tail),
        None => pattern == host,
    }
}

/// Whether a layer, by its description alone, admits a call: one of its sections does wholly, and none denies it.
fn layer_admits<'a>(body: &'a Body, host: &str, method: usize, path: usize) -> Option<&'a Net> {
    if body
        .net
        .iter()
        .any(|n| n.deny.iter().any(|d| about(PATTERNS[*d], host)))
    {
        return None;
    }
    body.net.iter().find(|n| {
        n.allow.iter().any(|a| about(PATTERNS[*a], host))
            && n.methods.contains(&method)
            && n.paths
                .as_ref()
                .is_none_or(|paths| paths.iter().any(|p| path_oracle(*p, path)))
    })
}

/// `/v1`, `/v1/*`, `/v1/...` and `/...` against `/v1`, `/v1/r`, `/v1/r/s` and `/other`, by hand.
fn path_oracle(pattern: usize, path: usize) -> bool {
    [
        [true, false, false, false],
        [false, true, false, false],
        [true, true, true, false],
        [true, true, true, true],
    ][pattern][path]
}

/// The most a fixed-window budget admits within `seconds`.
fn within(rate: Rate, seconds: u64) -> u128 {
    let windows = u128::from(seconds * 1000).div_ceil(u128::from(rate.per.get()));
    u128::from(rate.amount) * windows
}

fn granted(a: &Body, f: &Body, d: &Body) -> EffectiveGrant {
    intersect(
        &ask(&toml(a, Who::Ask)),
        &fleet(&toml(f, Who::Fleet)),
        &device(&toml(d, Who::Device)),
    )
    .unwrap()
}

/// Roots are what the ask names, nobody says otherwise about the same host, and a bundle is known to both of the others.
fn believed(grant: &EffectiveGrant, layers: [&Body; 3]) -> Result<(), TestCaseError> {
    for rule in &grant.net_http {
        let asked = layers[0].net[rule.id[1..].parse::<usize>().unwrap()]
            .roots
            .unwrap_or("webpki");
        prop_assert_eq!(rule.roots.to_string(), asked);
        let bundle = asked
            .strip_prefix("bundle:b")
            .map(|number| number.parse::<usize>().unwrap());
        let hosts: Vec<&&str> = HOSTS
            .iter()
            .filter(|host| redan_policy::egress::admits_connection(rule, true, host, 443))
            .collect();
        for layer in &layers[1..] {
            let about_it = |n: &&Net| {
                hosts
                    .iter()
                    .any(|host| n.allow.iter().any(|a| about(PATTERNS[*a], host)))
            };
            let named: Vec<&str> = layer
                .net
                .iter()
                .filter(about_it)
                .filter_map(|n| n.roots)
                .collect();
            prop_assert!(named.iter().all(|roots| *roots == asked), "{named:?} {rule:?}");
            if let Some(bundle) = bundle {
                prop_assert!(
                    layer.net.iter().any(|n| n.roots == Some(asked)) || layer.bundles.contains_key(&bundle)
                );
                let granted = &grant.bundles[&format!("b{bundle}")];
                prop_assert!(!granted.is_empty());
                if let Some(defined) = layer.bundles.get(&bundle) {
                    let defined: Vec<String> = defined.iter().map(|c| certificate(*c)).collect();
                    prop_assert!(granted.iter().all(|c| defined.contains(c)));
                }
            }
        }
    }
    for inject in &grant.secrets {
        let number: u8 = inject.secret[1..].parse().unwrap();
        prop_assert!(layers.iter().all(|layer| layer.secrets.contains(&number)));
        prop_assert!(grant.net_http.iter().any(|rule| rule.id == inject.net));
    }
    let stops = layers.iter().any(|layer| layer.stop_start == Some(true));
    prop_assert!(!stops || grant.upgrade.strategy == Strategy::StopStart);
    Ok(())
}

fn no_wider(grant: &EffectiveGrant, layers: [&Body; 3]) -> Result<(), TestCaseError> {
    believed(grant, layers)?;
    for rule in &grant.net_http {
        let asked = &layers[0].net[rule.id[1..].parse::<usize>().unwrap()];
        let own = Body {
            net: vec![asked.clone()],
            ..layers[0].clone()
        };
        for host in HOSTS {
            for (m, method) in METHODS.iter().enumerate() {
                for (p, (_, path)) in PATHS.iter().enumerate() {
                    if !admits(rule, method, true, host, 443, path) {
                        continue;
                    }
                    for layer in [&own, layers[1], layers[2]] {
                        let section = layer_admits(layer, host, m, p);
                        prop_assert!(
                            section.is_some(),
                            "{method} {host}{path} by {rule:?} against {layer:?}"
                        );
                        let section = section.unwrap();
                        prop_assert!(!rule.private_addresses || section.private);
                        if let Some((amount, seconds)) = section.requests {
                            let rate = rule.budget.requests.unwrap();
                            prop_assert!(rate.amount <= amount);
                            prop_assert!(within(rate, 1) <= u128::from(amount));
                            let slower = u128::from(rate.amount) * u128::from(seconds * 1000);
                            prop_assert!(slower <= u128::from(amount) * u128::from(rate.per.get()));
                        }
                    }
                }
            }
        }
    }
    for layer in layers {
        for volume in &grant.fs {
            let (write, bytes) = layer.volume.unwrap();
            prop_assert!(write || volume.mode == Mode::Read);
            prop_assert!(bytes.is_none_or(|kib| volume.bytes.get() <= kib << 10));
        }
        for bucket in &grant.kv {
            prop_assert!(bucket.keys <= layer.bucket.unwrap());
        }
        for key in grant.config.iter().flat_map(|config| config.keys()) {
            prop_assert!(
                layer
                    .config
                    .as_ref()
                    .unwrap()
                    .contains(&key[1..].parse().unwrap())
            );
        }
        if let Some(clock) = grant.clock {
            let (wall, resolution) = layer.clock.unwrap();
            prop_assert!((wall || !clock.wall) && clock.resolution.get() >= resolution);
        }
        for trigger in &grant.trigger_http {
            prop_assert!(layer.get || !trigger.methods.contains(&"GET".to_owned()));
        }
        prop_assert!(
            layer
                .memory
                .is_none_or(|mib| grant.limits.memory_total.get() <= mib << 20)
        );
        prop_assert!(
            layer
                .handles
                .is_none_or(|handles| grant.limits.handles <= handles)
        );
    }
    Ok(())
}

/// The grant without the order of layers, which means nothing.
fn unordered(mut grant: EffectiveGrant) -> EffectiveGrant {
    for rule in &mut grant.net_http {
        rule.allow.sort();
        rule.deny.sort();
        rule.paths.sort();
    }
    grant
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_grant_is_never_wider_than_any_of_the_three(a in body(), f in body(), d in body()) {
        no_wider(&granted(&a, &f, &d), [&a, &f, &d])?;
    }

    #[test]
    fn fleet_and_device_may_change_places(a in body(), f in body(), d in body()) {
        prop_assert_eq!(unordered(granted(&a, &f, &d)), unordered(granted(&a, &d, &f)));
    }

    #[test]
    fn a_narrowed_grant_is_wider_than_neither(a in body(), was in (body(), body()), is in (body(), body())) {
        let (before, after) = (granted(&a, &was.0, &was.1), granted(&a, &is.0, &is.1));
        let narrowed = before.narrowed_to(&after);
        no_wider(&narrowed, [&a, &was.0, &was.1])?;
        no_wider(&narrowed, [&a, &is.0, &is.1])?;
        prop_assert_eq!(&before.narrowed_to(&before), &before);
        prop_assert_eq!(&narrowed.narrowed_to(&after), &narrowed);
        prop_assert_eq!(unordered(after.narrowed_to(&before)), unordered(narrowed.clone()));
        let nothing = narrowed.nothing();
        prop_assert_eq!(&nothing.narrowed_to(&after), &nothing);
        prop_assert!(nothing.net_http.is_empty() && nothing.kv.is_empty() && nothing.trigger_http.is_empty());
    }

    #[test]
    fn saying_it_once_more_changes_nothing(a in body(), f in body()) {
        // The same layer twice: what it admitted once, it admits again.
        let once = granted(&a, &f, &f);
        let again = granted(&a, &f, &f);
        prop_assert_eq!(once.digest(), again.digest());
        for rule in &once.net_http {
            for (m, method) in METHODS.iter().enumerate() {
                for host in HOSTS {
                    for (p, (_, path)) in PATHS.iter().enumerate() {
                        if admits(rule, method, true, host, 443, path) {
                            prop_assert!(layer_admits(&f, host, m, p).is_some());
                        }
                    }
                }
            }
        }
        // Two that say the same come to what one says.
        let same = granted(&f, &f, &f);
        prop_assert_eq!(same.limits.handles, f.handles.unwrap_or(2000));
        prop_assert_eq!(same.fs.first().map(|v| v.mode == Mode::ReadWrite), f.volume.map(|(write, _)| write));
        prop_assert_eq!(same.clock.map(|c| (c.wall, c.resolution.get())), f.clock);
        prop_assert_eq!(same.config.map(|c| c.len()), f.config.as_ref().map(BTreeSet::len));
    }
}

#[test]
fn a_method_of_one_section_does_not_leak_to_the_origin_of_another() {
    let wanted = ask(
        "[[net.http]]\nid = \"cloud\"\nallow = [\"https://a.example\", \"https://b.example\"]\nmethods = [\"GET\", \"POST\"]\n",
    );
    let two = "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\n\
               [[net.http]]\nid = \"b\"\nallow = [\"https://b.example\"]\nmethods = [\"GET\", \"POST\"]\nprivate_addresses = true\n";
    let grant = intersect(&wanted, &fleet(two), &device(two)).unwrap();
    let rule = &grant.net_http[0];
    assert!(admits(rule, "GET", true, "b.example", 443, "/"));
    assert!(!admits(rule, "POST", true, "a.example", 443, "/"));
    assert!(!rule.private_addresses);
}

#[test]
fn a_slower_rate_of_larger_bursts_does_not_raise_the_burst() {
    let section = |rate: &str| {
        format!(
            "[[net.http]]\nid = \"c\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\nbudget = {{ requests = \"{rate}\" }}\n"
        )
    };
    let grant = intersect(
        &ask(&section("120/min")),
        &fleet(&section("600/h")),
        &device(&section("900/h")),
    )
    .unwrap();
    let rate = grant.net_http[0].budget.requests.unwrap();
    assert_eq!((rate.amount, rate.per.get()), (120, 12 * 60_000));
}
