//! What the core says, done in order.

use crate::access::Access;
use crate::disk::RealDisk;
use crate::executor::{Beside, Command, Executor};
use crate::fetch::Blobs;
use crate::fetch::fetch;
use crate::main_loop::{Agent, Event};
use redan_agent_core::{Effect, Input, MemberRecord};
use redan_protocol::ipc::{SlotId, ToExecutor, WorkloadKind};
use redan_protocol::{Code, ComponentName};
use std::collections::VecDeque;

impl Agent {
    /// Gives the machine an input and performs what follows, until it waits.
    pub(crate) fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.wake = None;
            let effects = self.machine.step(self.clock.now(), input);
            self.perform(effects, &mut inputs);
        }
    }

    /// Performs effects; answers that are known at once go to `inputs`.
    pub(crate) fn perform(&mut self, effects: Vec<Effect>, inputs: &mut VecDeque<Input>) {
        for effect in effects {
            match effect {
                Effect::Journal(record) => {
                    let seq = record.seq;
                    inputs.push_back(match self.journal.write(&RealDisk, &self.key, &record) {
                        Ok(()) => Input::Journaled(seq),
                        Err(code) => Input::JournalFailed(seq, code),
                    });
                }
                Effect::Fetch { digest, length } => {
                    let (link, events) = (self.link.clone(), self.around.events.clone());
                    let blobs: Blobs = self.around.native.blobs.clone();
                    tokio::task::spawn_local(async move {
                        let input = match fetch(link, blobs, digest, length).await {
                            Ok(()) => Input::Fetched(digest),
                            Err(code) => Input::FetchFailed(digest, code),
                        };
                        drop(events.send(Event::Input(input)));
                    });
                }
                Effect::Load { slot, member } => self.load(slot, member, inputs),
                Effect::Probe { slot, component } => self.tell(&component, slot, ToExecutor::Probe { slot }),
                Effect::Activate { slot, component } => {
                    self.tell(&component, slot, ToExecutor::Activate { slot });
                }
                Effect::PrepareStop {
                    slot,
                    component,
                    deadline,
                } => self.tell(&component, slot, ToExecutor::PrepareStop { slot, deadline }),
                Effect::Deactivate { component } => self.deactivate(component),
                Effect::Unload {
                    slot,
                    component,
                    drain,
                } => self.tell(&component, slot, ToExecutor::Unload { slot, drain }),
                Effect::Settled => {
                    if let Some(trust) = &mut self.trust {
                        trust.settle(&self.machine);
                    }
                    self.cadence.soon();
                }
                Effect::Wake(at) => self.wake = Some(at),
            }
        }
    }

    fn load(&mut self, slot: SlotId, member: Box<MemberRecord>, inputs: &mut VecDeque<Input>) {
        let component = member.component().clone();
        let publisher = component.publisher().clone();
        let secrets = match crate::secret::read(&self.ceiling, member.grant()) {
            Ok(secrets) => secrets,
            Err(code) => {
                inputs.push_back(Input::Failed(slot, code));
                return;
            }
        };
        let own = self.listeners.get(&component);
        let own = own.filter(|_| member.kind() == WorkloadKind::Service);
        let Ok(listener) = own.map(|(_, listener)| listener.try_clone()).transpose() else {
            inputs.push_back(Input::Failed(slot, Code::Internal));
            return;
        };
        let brokers = &member.grant().messages.brokers;
        let access = match Access::open(brokers, &component, &self.id) {
            Ok(access) => access,
            Err(error) => {
                tracing::warn!(code = error.code().name(), "{error}");
                inputs.push_back(Input::Failed(slot, error.code()));
                return;
            }
        };
        self.owners.insert(slot, publisher.clone());
        // What is left of its grant by now: the executor is told as soon as the version is loaded.
        let left = self.documents.left(&member, &self.ceiling);
        for message in self.rules.set(&component, slot, &left) {
            self.around.broker.tell(message);
        }
        let changes = self.links.put(slot, &left);
        let around = self.around.clone();
        let executor = self
            .executors
            .entry(publisher.clone())
            .or_insert_with(|| Executor::start(publisher, around));
        executor.tell(Command::Load {
            slot,
            member,
            beside: Beside {
                listener,
                access,
                secrets,
            },
        });
        self.relink(changes);
    }

    pub(crate) fn tell(&mut self, component: &ComponentName, slot: SlotId, message: ToExecutor) {
        // Without an executor the slot is gone already, and the machine was told so.
        if let Some(executor) = self.executors.get(component.publisher()) {
            executor.tell(Command::Tell(Some(slot), message));
        }
    }

    fn deactivate(&mut self, component: ComponentName) {
        if let Some(executor) = self.executors.get(component.publisher()) {
            executor.tell(Command::Tell(None, ToExecutor::Deactivate { component }));
        }
    }
}
