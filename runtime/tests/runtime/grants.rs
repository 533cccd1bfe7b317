//! Grants that give everything a guest here imports, generous enough for a busy machine; tests narrow what they test.

use redan_policy::EffectiveGrant;
use redan_policy::grant::{
    Bucket, HealthContract, HttpRule, HttpTrigger, Limits, Log, Messages, Mode, NetBudget, Origin, Random,
    Rate, Roots, Strategy, Upgrade, Volume, World,
};
use redan_protocol::{ByteCount, Millis};
use std::collections::{BTreeMap, BTreeSet};

/// A component that imports nothing and is granted nothing.
pub(crate) fn bare(component: &str, world: World) -> EffectiveGrant {
    EffectiveGrant {
        component: component.parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        world,
        trigger_http: Vec::new(),
        trigger_timer: Vec::new(),
        job_args: Vec::new(),
        net_http: Vec::new(),
        messages: Messages::default(),
        bundles: BTreeMap::new(),
        secrets: Vec::new(),
        fs: Vec::new(),
        kv: Vec::new(),
        env: BTreeMap::new(),
        config: None,
        clock: None,
        random: None,
        log: None,
        limits: Limits {
            memory_total: ByteCount::mib(16),
            memory_min: ByteCount::new(0),
            table_elements: 10_000,
            instances_max: 20,
            concurrency: 8,
            cpu_per_call: Millis::seconds(60),
            cpu_share: None,
            fuel_per_call: 0,
            wall_call: Millis::seconds(60),
            wall_start: Millis::seconds(60),
            wasm_stack: ByteCount::kib(512),
            handles: 500,
            descriptors: 64,
            sockets: 8,
            hostcall_bytes: ByteCount::mib(1),
            body_request: ByteCount::kib(100),
            body_response: ByteCount::kib(100),
            header_bytes: ByteCount::kib(16),
        },
        isolation: BTreeSet::new(),
        health: HealthContract {
            interval: Millis::seconds(10),
            timeout: Millis::seconds(60),
            fail_after: 3,
            probation: Millis::seconds(60),
            max_error_permille: 50,
            max_restarts: 3,
        },
        upgrade: Upgrade {
            strategy: Strategy::Swap,
            drain: Millis::seconds(60),
            reuse_calls: 1,
            max_defer: Millis::new(0),
        },
        denied_optional: Vec::new(),
    }
}

/// What `hostile/job` imports, and which attack it is to make.
pub(crate) fn job(attack: &str) -> EffectiveGrant {
    let mut grant = bare("acme/hostile", World::Command);
    grant.env.insert("ATTACK".to_owned(), attack.to_owned());
    grant.kv.push(Bucket {
        label: "default".to_owned(),
        bytes: ByteCount::kib(64),
        keys: 64,
        ops: None,
    });
    grant.log = Some(Log {
        budget: Rate {
            amount: 64 * 1024,
            per: Millis::seconds(3600),
        },
    });
    grant.random = Some(Random {
        max_bytes_per_call: ByteCount::kib(64),
    });
    grant.net_http.push(rule("http", "allowed.example", 80));
    grant
}

/// What `hostile/service` imports, on every path.
pub(crate) fn service(version: &str) -> EffectiveGrant {
    let mut grant = bare("acme/hostile-service", World::HttpProxy);
    grant.env.insert("VERSION".to_owned(), version.to_owned());
    grant.trigger_http.push(HttpTrigger {
        route: "/...".to_owned(),
        methods: vec!["GET".to_owned(), "POST".to_owned()],
    });
    // Imported by the guest; tests that want it grant it.
    grant.denied_optional.push("net.http".to_owned());
    grant
}

pub(crate) fn rule(scheme: &str, host: &str, port: u16) -> HttpRule {
    HttpRule {
        id: "test".to_owned(),
        allow: vec![vec![Origin {
            https: scheme == "https",
            host: host.to_owned(),
            port,
        }]],
        deny: Vec::new(),
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        paths: vec![vec!["/...".to_owned()]],
        private_addresses: true,
        roots: Roots::Public,
        budget: NetBudget::default(),
    }
}

pub(crate) fn volume(mode: Mode) -> Volume {
    Volume {
        name: "state".to_owned(),
        guest: "/state".to_owned(),
        host: None,
        mode,
        bytes: ByteCount::kib(64),
        files: 16,
    }
}
