//! A call dropped at each of its waits: whoever lets go of it, and when, everything it held is there for the next one.

use crate::{grants, guests};
use redan_host_api::egress::{Dial, Outside, public_tls};
use redan_host_api::kv::Stores;
use redan_host_api::limits::{Cpu, Verdict};
use redan_host_api::link;
use redan_host_api::log::Sink;
use redan_host_api::outbox::queue::Outboxes;
use redan_host_api::state::{Capabilities, GuestState, new_store};
use redan_host_api::workload::{Pools, Workload};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Clock, Mode};
use redan_protocol::{ByteCount, Code, ComponentName, Millis};
use redan_runtime::compiler::admit;
use redan_runtime::engine::{Sizes, executor_engine};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::runtime::Runtime;
use wasmtime::Engine;
use wasmtime_wasi::p2::bindings::CommandPre;

/// Nobody dials here.
struct Nowhere;

impl Dial for Nowhere {
    fn dial(
        &self,
        _: &ComponentName,
        _: bool,
        _: &str,
        _: u16,
    ) -> Pin<Box<dyn Future<Output = Result<OwnedFd, Code>> + Send>> {
        Box::pin(async { Err(Code::EgressUnreachable) })
    }
}

/// An executor's parts with exactly what one call needs: one place, memory for one instance, three descriptors.
struct Scene {
    engine: Engine,
    runtime: Runtime,
    entry: CommandPre<GuestState>,
    capabilities: Arc<Capabilities>,
    _data: tempfile::TempDir,
}

impl Scene {
    fn new(grant: &EffectiveGrant) -> Self {
        let sizes = Sizes {
            instances: 1,
            memory_max: ByteCount::mib(4),
            keep_resident: ByteCount::kib(64),
        };
        let (engine, _) = executor_engine(&sizes).unwrap();
        let component = admit(&engine, &guests::hostile_job(), grant).unwrap();
        let linker = link::linker(&engine, grant).unwrap();
        let data = tempfile::tempdir().unwrap();
        let pools = Pools::new();
        pools.set_memory(ByteCount::mib(2));
        let capabilities = Capabilities::open(
            grant.clone(),
            data.path(),
            (
                &Stores::new(data.path().join("kv")),
                &Outboxes::new(data.path().join("outbox")),
            ),
            Some(Arc::new(Sink::open(&data.path().join("logs"), "any").unwrap())),
            Outside {
                dial: Arc::new(Nowhere),
                public: public_tls().unwrap(),
                secrets: Arc::default(),
            },
            &Workload::new(grant.component.clone(), &pools),
        );
        Self {
            entry: CommandPre::new(linker.instantiate_pre(&component).unwrap()).unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap(),
            capabilities: capabilities.unwrap(),
            engine,
            _data: data,
        }
    }

    /// Whether a call ended within so many polls; if not, it was dropped where it waited then.
    fn ends_within(&self, polls: usize) -> bool {
        let verdict = Verdict::default();
        let cpu = Cpu::new(&self.capabilities, &verdict);
        let mut store = new_store(&self.engine, &self.capabilities, &verdict, &cpu).unwrap();
        let mut call = Box::pin(cpu.measure(Box::pin(async {
            let command = self.entry.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        })));
        let mut polled = 0;
        let outcome = self.runtime.block_on(poll_fn(|context| {
            if polled == polls {
                return Poll::Ready(None);
            }
            polled += 1;
            // Every other time it waits where the guest is interrupted instead of where the host makes it wait.
            if polled % 2 == 0 {
                self.engine.increment_epoch();
            }
            call.as_mut().poll(context).map(Some)
        }));
        drop(call);
        assert_eq!(verdict.code(), None, "dropped after {polls} polls");
        match outcome {
            None => false,
            Some(Ok(outcome)) => {
                assert_eq!(outcome, Ok(()), "after calls that were dropped");
                true
            }
            Some(Err(error)) => panic!("after calls that were dropped: {error:?}"),
        }
    }
}

#[test]
fn a_call_dropped_at_any_of_its_waits_leaves_nothing_behind() {
    let mut grant = grants::job("use-everything");
    grant.fs.push(grants::volume(Mode::ReadWrite));
    grant.clock = Some(Clock {
        wall: true,
        resolution: Millis::new(1),
    });
    grant.limits.descriptors = 3;
    let scene = Scene::new(&grant);
    let mut polls = 0;
    while !scene.ends_within(polls) {
        polls += 1;
    }
    assert!(polls > 20, "only {polls} waits");
    assert!(scene.ends_within(usize::MAX), "and once more");
}
