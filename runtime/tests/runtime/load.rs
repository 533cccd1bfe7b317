//! What the executor refuses to load or link.

use crate::device::{Device, load_order};
use crate::guests::many;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::World;
use redan_protocol::ipc::{FromExecutor, SlotId, ToExecutor};
use redan_protocol::{ByteCount, Code, Millis};
use redan_runtime::executor::SLOTS_MAX;
use std::os::fd::AsFd;

fn bare() -> EffectiveGrant {
    grants::bare("acme/hostile", World::Command)
}

#[test]
fn native_code_that_is_not_sealed_or_not_ours_is_refused() {
    let mut device = Device::start();
    let native = guests::native(&guests::harmless("well-behaved"), &bare());
    let open = redan_sealed::unsealed("native", &native).unwrap();
    let refused = device.load_beside(&bare(), &[open.as_fd()]);
    assert_eq!(refused, Err(Code::CachePoisoned), "a memory file without seals");
    let path = device.data.path().join("native");
    std::fs::write(&path, &**native).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let refused = device.load_beside(&bare(), &[file.as_fd()]);
    assert_eq!(refused, Err(Code::CachePoisoned), "a file of the disk");
    let foreign = wasmtime::Engine::default().precompile_component(&guests::harmless("well-behaved"));
    let refused = device.load_native(&foreign.unwrap(), &bare());
    assert_eq!(refused, Err(Code::CachePoisoned), "code of another engine");
    let refused = device.load_native(&guests::harmless("well-behaved"), &bare());
    assert_eq!(refused, Err(Code::CachePoisoned), "Wasm in place of native code");
    device.serves_others();
}

#[test]
fn an_import_that_the_grant_lacks_is_not_linked() {
    let mut device = Device::start();
    let native = guests::native(&guests::hostile_job(), &grants::job("none"));
    let mut without = Vec::new();
    for take in [
        |grant: &mut EffectiveGrant| grant.kv.clear(),
        |grant: &mut EffectiveGrant| grant.net_http.clear(),
        |grant: &mut EffectiveGrant| grant.log = None,
    ] {
        let mut grant = grants::job("none");
        take(&mut grant);
        without.push(device.load_native(&native, &grant).err());
    }
    assert_eq!(without, [Some(Code::LinkFailed); 3]);
    assert!(device.load_native(&native, &grants::job("none")).is_ok());
    device.serves_others();
}

#[test]
fn an_import_denied_as_optional_is_linked_to_a_stub() {
    let mut device = Device::start();
    let mut grant = grants::job("kv-foreign-bucket");
    grant.kv.clear();
    grant.log = None;
    grant.net_http.clear();
    grant.denied_optional = ["kv", "log", "net.http"].map(str::to_owned).to_vec();
    // No bucket behind it, and nowhere to write to.
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    grant.env.insert("ATTACK".to_owned(), "flood-log".to_owned());
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    assert!(!device.data.path().join("logs").exists());
}

#[test]
fn what_no_instance_here_may_have_is_a_limit_and_no_damage() {
    let mut device = Device::start();
    let mut grant = bare();
    grant.limits.instances_max = 1000;
    grant.limits.table_elements = 1_000_000;
    grant.limits.memory_total = ByteCount::mib(1024);
    for (guest, code) in [
        (many(33, ""), Code::InstanceLimit),
        (
            many(1, &"(global i64 (i64.const 0))".repeat(70_000)),
            Code::InstanceLimit,
        ),
        (many(9, "(memory 0)"), Code::MemoryLimit),
        (many(1, &"(memory 0)".repeat(9)), Code::MemoryLimit),
        (many(1, "(memory 513)"), Code::MemoryLimit),
        (many(2, &"(table 0 funcref)".repeat(17)), Code::TableLimit),
        (many(1, &"(table 0 funcref)".repeat(33)), Code::TableLimit),
        (many(1, "(table 20001 funcref)"), Code::TableLimit),
    ] {
        assert_eq!(device.load(&guest, &grant), Err(code));
    }
    device.serves_others();
}

#[test]
fn a_component_under_the_wrong_kind_is_refused() {
    let mut device = Device::start();
    let native = guests::native(&guests::harmless("well-behaved"), &bare());
    let mut grant = bare();
    grant.world = World::HttpProxy;
    assert_eq!(device.load_native(&native, &grant), Err(Code::MissingExport));
    device.serves_others();
}

#[test]
fn a_load_order_that_contradicts_itself_is_refused() {
    let mut device = Device::start();
    let native = guests::native(&guests::harmless("well-behaved"), &bare());
    let file = redan_sealed::seal("native", &native).unwrap();
    let refused = |device: &mut Device, order: &ToExecutor, code| {
        device.say(order, &[file.as_fd()]);
        let slot = SlotId(1);
        assert_eq!(device.hear(), FromExecutor::Failed { slot, code });
    };
    let ToExecutor::Load {
        digest, kind, grant, ..
    } = load_order(SlotId(1), &bare())
    else {
        panic!("it is a load order");
    };
    let order = |component: &str, grant: &[u8]| ToExecutor::Load {
        slot: SlotId(1),
        component: component.parse().unwrap(),
        digest,
        kind,
        grant: grant.to_vec(),
    };
    refused(&mut device, &order("other/name", &grant), Code::PolicyInvalid);
    refused(&mut device, &order("acme/hostile", b"{}"), Code::PolicyInvalid);
    assert_eq!(
        device.load_beside(&bare(), &[]),
        Err(Code::Internal),
        "no native code"
    );
    let three = [file.as_fd(), file.as_fd(), file.as_fd()];
    assert_eq!(device.load_beside(&bare(), &three), Err(Code::Internal));
    device.serves_others();
}

#[test]
fn slots_are_bounded_and_never_loaded_twice() {
    let mut device = Device::start();
    let native = guests::native(&guests::harmless("well-behaved"), &bare());
    let slots: Vec<_> = (0..SLOTS_MAX)
        .map(|_| device.load_native(&native, &bare()).unwrap())
        .collect();
    assert_eq!(
        device.load_native(&native, &bare()),
        Err(Code::Internal),
        "one slot too many"
    );
    device.unload(slots[0], Millis::seconds(60));
    let file = redan_sealed::seal("native", &native).unwrap();
    device.say(&load_order(slots[1], &bare()), &[file.as_fd()]);
    let (slot, code) = (slots[1], Code::Internal);
    assert_eq!(
        device.hear(),
        FromExecutor::Failed { slot, code },
        "a slot in use"
    );
    assert_eq!(device.run(slots[1]), Ok(()), "what was there stays");
    device.serves_others();
}

#[test]
fn orders_for_a_slot_that_is_not_there_are_answered() {
    let mut device = Device::start();
    let slot = SlotId(77);
    let missing = FromExecutor::Failed {
        slot,
        code: Code::NotFound,
    };
    for order in [
        ToExecutor::Probe { slot },
        ToExecutor::Run { slot },
        ToExecutor::Activate { slot },
    ] {
        device.say(&order, &[]);
        assert_eq!(device.hear(), missing);
    }
    device.unload(slot, Millis::new(0));
    device.serves_others();
}

#[test]
fn an_executor_ends_with_its_agent_whatever_its_guests_do() {
    let mut device = Device::start();
    let mut grant = bare();
    grant.limits.cpu_per_call = Millis::seconds(86_400);
    grant.limits.wall_call = Millis::seconds(86_400);
    let slot = device.load(&guests::hostile("loops-forever"), &grant).unwrap();
    device.say(&ToExecutor::Run { slot }, &[]);
    // Only once the order is obeyed: the next one is answered after it.
    assert_eq!(device.probe(slot), Ok(()));
    device.end();
}
