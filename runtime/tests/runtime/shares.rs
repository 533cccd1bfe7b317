//! What workloads of one executor have of memory, CPU and operations, beside each other.

use crate::client::{Client, get};
use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Rate, World};
use redan_protocol::ipc::ToExecutor;
use redan_protocol::{ByteCount, Code, Millis};

fn bare(component: &str) -> EffectiveGrant {
    grants::bare(component, World::Command)
}

/// The job's attack under another name.
fn job(component: &str, attack: &str, target: &str) -> EffectiveGrant {
    let mut grant = grants::job(attack);
    grant.component = component.parse().unwrap();
    grant.env.insert("TARGET".to_owned(), target.to_owned());
    grant
}

#[test]
fn memory_beyond_the_executors_part_is_refused_before_it_is_there() {
    let mut device = Device::start();
    let mut grant = bare("acme/hostile");
    device.memory(ByteCount::mib(4));
    assert_eq!(
        device.outcome(&guests::hostile("fills-memory"), &grant),
        Err(Code::DeviceMemory)
    );
    // What the call had is back, and the sum of what it starts with counts like growth.
    let sixteen = ByteCount::mib(16);
    grant.limits.memory_total = sixteen;
    assert_eq!(device.outcome(&guests::many(4, "(memory 16)"), &grant), Ok(()));
    assert_eq!(
        device.outcome(&guests::many(4, "(memory 17)"), &grant),
        Err(Code::DeviceMemory)
    );
    device.memory(sixteen);
    assert_eq!(device.outcome(&guests::many(4, "(memory 17)"), &grant), Ok(()));
    device.serves_others();
}

#[test]
fn an_executor_that_was_given_no_memory_runs_nothing_that_needs_some() {
    let mut device = Device::start();
    device.memory(ByteCount::new(0));
    let mut grant = bare("acme/hostile");
    let needs = guests::many(1, "(memory 1)");
    assert_eq!(device.outcome(&needs, &grant), Err(Code::DeviceMemory));
    grant.limits.memory_min = ByteCount::new(1);
    assert_eq!(device.load(&needs, &grant), Err(Code::DeviceMemory));
}

#[test]
fn a_workload_cannot_starve_anothers_minimum() {
    let mut device = Device::start();
    device.memory(ByteCount::mib(8));
    let mut modest = bare("acme/modest");
    modest.limits.memory_min = ByteCount::mib(2);
    let needs_all = device.load(&guests::many(1, "(memory 32)"), &modest).unwrap();
    let (_, address) = device.serve(&guests::hostile_service(), &grants::service("1"));
    // Requests whose bodies never end: their guests live on, until there is no more memory for another one.
    let mut held = Vec::new();
    loop {
        let mut client = Client::connect(address);
        if !client.try_begin("/count") {
            break;
        }
        held.push(client);
    }
    assert!(held.len() > 1, "the greedy one has what is left");
    assert_eq!(get(address, "/version").refusal(), (503, "device-memory"));
    for _ in 0..10 {
        assert_eq!(device.run(needs_all), Ok(()), "the modest one has its minimum");
    }
    // A minimum that is not there any more is not promised to a third.
    let mut third = bare("acme/third");
    third.limits.memory_min = ByteCount::mib(7);
    let harmless = guests::harmless("well-behaved");
    assert_eq!(device.load(&harmless, &third), Err(Code::DeviceMemory));
    for mut client in held {
        assert_eq!(client.end().text(), "0");
    }
    assert_eq!(get(address, "/version").text(), "1");
    device.serves_others();
}

#[test]
fn a_greedy_workload_waits_for_its_share_and_a_modest_one_does_not() {
    let mut device = Device::start();
    let wasm = guests::hostile_job();
    // Ten milliseconds at once, then one in a hundred: what the greedy one spends takes it many times its burst.
    let mut greedy = job("acme/greedy", "spend-cpu", "300");
    greedy.limits.cpu_share = Some(10);
    let greedy = device.load(&wasm, &greedy).unwrap();
    let mut modest = job("acme/modest", "none", "");
    modest.limits.cpu_share = Some(500);
    let modest = device.load(&wasm, &modest).unwrap();
    device.forget_signals();
    device.say(&ToExecutor::Run { slot: greedy }, &[]);
    // Answered in order of ending: all of these end while the greedy one waits.
    for _ in 0..20 {
        assert_eq!(device.run(modest), Ok(()));
    }
    assert_eq!(device.probed(greedy), Ok(()), "it waited, and was not ended");
    let (of_greedy, of_modest) = (device.signals(greedy), device.signals(modest));
    assert_eq!((of_greedy.failures, of_greedy.last), (0, Some(Code::CpuShare)));
    assert_eq!((of_modest.failures, of_modest.last), (0, None));
    device.serves_others();
}

#[test]
fn all_calls_and_versions_of_a_workload_spend_one_share() {
    let mut device = Device::start();
    let wasm = guests::hostile_job();
    let mut grant = job("acme/greedy", "spend-cpu", "50");
    grant.limits.cpu_share = Some(2);
    let (old, new) = (
        device.load(&wasm, &grant).unwrap(),
        device.load(&wasm, &grant).unwrap(),
    );
    device.forget_signals();
    assert_eq!(device.run(old), Ok(()));
    // The debt of the old version's call is the new one's.
    grant.env.insert("TARGET".to_owned(), "0".to_owned());
    assert_eq!(device.run(new), Ok(()));
    assert_eq!(device.signals(new).last, Some(Code::CpuShare));
    device.serves_others();
}

#[test]
fn fuel_ends_a_call_at_the_same_instruction_every_time() {
    let mut device = Device::start();
    // Fuel for a run of so many rounds: found once, it is enough every time, and one less never is.
    let rounds = wat::parse_str(ROUNDS).unwrap();
    let mut grant = bare("acme/metered");
    let mut outcome = |fuel| {
        grant.limits.fuel_per_call = fuel;
        device.outcome(&rounds, &grant)
    };
    let (mut low, mut high) = (1, 100_000);
    assert_eq!(outcome(high), Ok(()));
    while low < high {
        let fuel = u64::midpoint(low, high);
        match outcome(fuel) {
            Ok(()) => high = fuel,
            Err(code) => {
                assert_eq!(code, Code::FuelLimit);
                low = fuel + 1;
            }
        }
    }
    assert!(low > 1_000, "a thousand rounds for {low} units");
    for _ in 0..5 {
        assert_eq!(outcome(low), Ok(()));
        assert_eq!(outcome(low - 1), Err(Code::FuelLimit));
    }
    grant.limits.fuel_per_call = 1_000_000;
    assert_eq!(
        device.outcome(&guests::hostile("loops-forever"), &grant),
        Err(Code::FuelLimit)
    );
    device.serves_others();
}

const ROUNDS: &str = "(component
    (core module $m (func (export \"run\") (result i32) (local i32)
        (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))
        i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i \"run\")))
    (instance $e (export \"run\" (func $run)))
    (export \"wasi:cli/run@0.2.0\" (instance $e)))";

#[test]
fn code_that_counts_no_fuel_is_not_loaded_where_fuel_is_limited() {
    let mut device = Device::start();
    let mut grant = bare("acme/hostile");
    let plain = guests::native(&guests::harmless("well-behaved"), &grant);
    grant.limits.fuel_per_call = 1_000_000;
    assert_eq!(device.load_native(&plain, &grant), Err(Code::CachePoisoned));
    let metered = guests::native(&guests::harmless("well-behaved"), &grant);
    let slot = device.load_native(&metered, &grant).unwrap();
    assert_eq!(device.run(slot), Ok(()));
    grant.limits.fuel_per_call = 0;
    assert_eq!(device.load_native(&metered, &grant), Err(Code::CachePoisoned));
}

#[test]
fn operations_on_a_bucket_stop_at_its_rate() {
    let mut device = Device::start();
    let wasm = guests::hostile_job();
    let mut grant = job("acme/hostile", "kv-often", "20");
    grant.kv[0].ops = Some(Rate {
        amount: 20,
        per: Millis::seconds(86_400),
    });
    assert_eq!(device.outcome(&wasm, &grant), Ok(()));
    assert_eq!(
        device.outcome(&wasm, &grant),
        Err(Code::KvQuota),
        "all calls share the rate"
    );
    device.serves_others();
}
