//! Instances of strangers follow each other in one place of the pool: nothing of the first is left for the second.

use crate::device::Device;
use crate::far_end::FarEnd;
use crate::{grants, guests};
use redan_policy::grant::World;
use redan_protocol::{ByteCount, Code};
use redan_runtime::engine::{Allocation, Sizes};
use redan_runtime::executor::Executor;

/// One place only, so that the second instance gets the first one's; less kept resident than is written, so that both
/// ways of cleaning are gone through.
const ONE_PLACE: Sizes = Sizes {
    instances: 1,
    memory_max: ByteCount::mib(8),
    keep_resident: ByteCount::kib(512),
};

#[test]
fn an_instance_finds_nothing_of_the_one_before_it() {
    let allocation = Executor::prepare(&ONE_PLACE, false).unwrap().allocation();
    assert_ne!(
        allocation,
        Allocation::OnDemand,
        "without a pool this test says nothing"
    );
    let mut device = Device::with(&ONE_PLACE, FarEnd::refusing());
    let grant = |name| grants::bare(name, World::Command);
    let secret = device
        .load(&guests::hostile("leaves-a-secret"), &grant("acme/first"))
        .unwrap();
    let reader = guests::hostile("reads-what-was-before");
    let reader = device.load(&reader, &grant("other/second")).unwrap();
    for _ in 0..3 {
        assert_eq!(device.run(secret), Ok(()));
        assert_eq!(device.run(reader), Ok(()), "something was left");
    }
}

#[test]
fn a_single_byte_left_over_would_be_found() {
    let mut device = Device::with(&ONE_PLACE, FarEnd::refusing());
    let text = guests::hostile_text("reads-what-was-before");
    for left in [
        "(data (i32.const 3999999) \"\\a5\")",
        "(elem (table 0) (i32.const 999) func 0)",
    ] {
        let text = text.replace(";; control", left);
        let guest = wat::parse_str(text).unwrap();
        let outcome = device.outcome(&guest, &grants::bare("other/second", World::Command));
        assert_eq!(outcome, Err(Code::JobFailed), "{left}");
    }
}
