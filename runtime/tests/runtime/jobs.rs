//! Hostile jobs: each breaks one limit of a call and gets exactly its code.

use crate::device::Device;
use crate::guests::many;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Clock, World};
use redan_protocol::{ByteCount, Code, Millis};

fn bare() -> EffectiveGrant {
    grants::bare("acme/hostile", World::Command)
}

/// The outcome of a text guest; the neighbour is served afterwards.
fn outcome(guest: &str, grant: &EffectiveGrant) -> Result<(), Code> {
    let mut device = Device::start();
    let outcome = device.outcome(&guests::hostile(guest), grant);
    device.serves_others();
    outcome
}

/// The outcome of one attack of `hostile/job`.
fn attack(grant: &EffectiveGrant) -> Result<(), Code> {
    let mut device = Device::start();
    let outcome = device.outcome(&guests::hostile_job(), grant);
    device.serves_others();
    outcome
}

#[test]
fn a_guest_that_ends_well_is_healthy() {
    assert_eq!(attack(&grants::job("none")), Ok(()));
}

#[test]
fn a_job_that_says_it_failed_is_believed() {
    assert_eq!(attack(&grants::job("fail")), Err(Code::JobFailed));
}

#[test]
fn a_guest_that_traps_gets_the_code_for_it() {
    assert_eq!(outcome("traps", &bare()), Err(Code::Trapped));
    assert_eq!(attack(&grants::job("panic")), Err(Code::Trapped));
}

#[test]
fn a_guest_that_loops_is_cut_off() {
    let mut grant = bare();
    grant.limits.cpu_per_call = Millis::new(50);
    assert_eq!(outcome("loops-forever", &grant), Err(Code::CpuLimit));
}

#[test]
fn a_guest_that_loops_while_it_starts_is_cut_off() {
    let mut grant = bare();
    grant.limits.cpu_per_call = Millis::new(50);
    let mut device = Device::start();
    let slot = device.load(&guests::hostile("loops-at-start"), &grant).unwrap();
    assert_eq!(device.probe(slot), Err(Code::CpuLimit));
    assert_eq!(device.run(slot), Err(Code::CpuLimit));
    device.serves_others();
}

#[test]
fn a_start_that_takes_too_long_is_a_probe_that_timed_out() {
    let mut grant = bare();
    grant.limits.wall_start = Millis::new(50);
    let mut device = Device::start();
    let slot = device.load(&guests::hostile("loops-at-start"), &grant).unwrap();
    assert_eq!(device.probe(slot), Err(Code::ProbeTimeout));
    device.serves_others();
}

#[test]
fn a_guest_that_loops_longer_than_its_wall_clock_limit_is_cut_off() {
    let mut grant = bare();
    grant.limits.wall_call = Millis::new(50);
    assert_eq!(outcome("loops-forever", &grant), Err(Code::WallLimit));
}

#[test]
fn a_guest_that_sleeps_is_cut_off() {
    let mut grant = grants::job("sleep");
    grant.limits.wall_call = Millis::new(500);
    // With its clock standing still, and with one that runs.
    assert_eq!(attack(&grant), Err(Code::WallLimit));
    grant.clock = Some(Clock {
        wall: true,
        resolution: Millis::new(1),
    });
    assert_eq!(attack(&grant), Err(Code::WallLimit));
}

#[test]
fn a_guest_that_grows_its_memory_is_stopped_at_its_total() {
    assert_eq!(outcome("fills-memory", &bare()), Err(Code::MemoryLimit));
}

#[test]
fn memories_below_the_limit_each_are_summed() {
    assert_eq!(outcome("fills-many-memories", &bare()), Err(Code::MemoryLimit));
    let mut grant = bare();
    grant.limits.memory_total = ByteCount::mib(21);
    assert_eq!(outcome("fills-many-memories", &grant), Ok(()));
}

#[test]
fn a_memory_the_grant_admits_and_the_pool_does_not_is_refused_the_same() {
    let mut grant = bare();
    grant.limits.memory_total = ByteCount::mib(1024);
    assert_eq!(outcome("fills-memory", &grant), Err(Code::MemoryLimit));
}

#[test]
fn a_guest_that_grows_its_table_is_stopped_at_its_total() {
    assert_eq!(outcome("grows-a-table", &bare()), Err(Code::TableLimit));
}

#[test]
fn a_guest_that_recurses_is_stopped_at_its_stack() {
    assert_eq!(outcome("recurses-forever", &bare()), Err(Code::StackLimit));
}

#[test]
fn instances_memories_and_tables_are_counted() {
    let mut device = Device::start();
    let mut grant = bare();
    grant.limits.instances_max = 4;
    assert_eq!(device.outcome(&many(4, ""), &grant), Ok(()));
    assert_eq!(device.outcome(&many(5, ""), &grant), Err(Code::InstanceLimit));
    let five = |what: &str| many(1, &what.repeat(5));
    assert_eq!(
        device.outcome(&five("(memory 0)"), &grant),
        Err(Code::MemoryLimit)
    );
    assert_eq!(
        device.outcome(&five("(table 0 funcref)"), &grant),
        Err(Code::TableLimit)
    );
    device.serves_others();
}

#[test]
fn what_a_guest_starts_with_counts_too() {
    let mut device = Device::start();
    let mut grant = bare();
    grant.limits.memory_total = ByteCount::mib(1);
    grant.limits.table_elements = 10;
    assert_eq!(device.outcome(&many(2, "(memory 8)"), &grant), Ok(()));
    assert_eq!(
        device.outcome(&many(2, "(memory 9)"), &grant),
        Err(Code::MemoryLimit)
    );
    assert_eq!(device.outcome(&many(2, "(table 5 funcref)"), &grant), Ok(()));
    assert_eq!(
        device.outcome(&many(2, "(table 6 funcref)"), &grant),
        Err(Code::TableLimit)
    );
    device.serves_others();
}

#[test]
fn a_guest_that_leaks_host_resources_is_stopped() {
    let mut grant = grants::job("leak-handles");
    assert_eq!(attack(&grant), Err(Code::HandleLimit));
    // Each is two entries of the host's table, of which the grant has 500.
    for (count, outcome) in [("200", Ok(())), ("300", Err(Code::HandleLimit))] {
        grant.env.insert("TARGET".to_owned(), count.to_owned());
        assert_eq!(attack(&grant), outcome, "{count} leaked");
    }
}

#[test]
fn a_guest_that_leaks_resources_of_its_own_is_stopped() {
    let guest = "leaks-its-own-resources";
    assert_eq!(outcome(guest, &bare()), Err(Code::HandleLimit));
    let mut device = Device::start();
    for (count, outcome) in [(500, Ok(())), (501, Err(Code::HandleLimit))] {
        let text = guests::hostile_text(guest);
        let text = text.replace("(i32.const -1)", &format!("(i32.const {count})"));
        let guest = wat::parse_str(text).unwrap();
        assert_eq!(device.outcome(&guest, &bare()), outcome, "{count} leaked");
    }
}

#[test]
fn a_huge_list_or_string_is_not_copied_into_the_host() {
    for what in ["huge-list", "huge-string"] {
        let mut grant = grants::job(what);
        grant.limits.memory_total = ByteCount::mib(200);
        let mut device = Device::with(
            &redan_runtime::engine::Sizes::default(),
            crate::far_end::FarEnd::refusing(),
        );
        let outcome = device.outcome(&guests::hostile_job(), &grant);
        assert_eq!(outcome, Err(Code::HostcallLimit), "{what}");
        device.serves_others();
    }
}

#[test]
fn random_bytes_stop_at_the_grant() {
    assert_eq!(attack(&grants::job("random")), Err(Code::RandomLimit));
    assert_eq!(attack(&grants::job("insecure-random")), Err(Code::RandomLimit));
    let mut grant = grants::job("random");
    grant.random = None;
    assert_eq!(attack(&grant), Err(Code::RandomLimit));
}

#[test]
fn key_value_quotas_hold() {
    for what in ["kv-bytes", "kv-keys", "kv-long-key", "kv-batch"] {
        assert_eq!(attack(&grants::job(what)), Err(Code::KvQuota), "{what}");
    }
}

#[test]
fn one_value_read_many_times_in_one_call_counts_every_time() {
    let grant = grants::job("kv-read-back-multiplied");
    assert_eq!(attack(&grant), Err(Code::HostcallLimit));
}

#[test]
fn a_bucket_the_grant_does_not_name_is_not_there() {
    assert_eq!(attack(&grants::job("kv-foreign-bucket")), Ok(()));
}

#[test]
fn a_guest_without_grants_sees_nothing_of_its_device() {
    let mut grant = grants::job("look-around");
    grant.random = None;
    assert_eq!(attack(&grant), Ok(()));
}
