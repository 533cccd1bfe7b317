//! The compiler: one component in, native code out, then the process ends.

use crate::engine;
use redan_channel::ChannelError;
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{Compile, Compiled};
use redan_protocol::wire::COMPONENT_LEN_MAX;
use redan_protocol::{ByteCount, Code, Digest};
use redan_sealed::{Sealed, SealedError};
use std::os::fd::{AsFd, OwnedFd};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Why the compiler did not even answer.
#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    /// The agent is gone, or says something else than a job.
    #[error("the channel to the agent: {0}")]
    Channel(#[from] ChannelError),
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// No thread to compile on.
    #[error("the compiler does not start: {0}")]
    Start(#[source] std::io::Error),
    /// The compiler panicked, which is a bug of it or of what it is made of.
    #[error("the compiler died")]
    Died,
    /// No memory file for the answer.
    #[error("the native code cannot be handed back: {0}")]
    Answer(#[source] SealedError),
}

impl CompilerError {
    /// The code that leaves the process.
    pub const fn code(&self) -> Code {
        Code::CompilerFailed
    }
}

/// Takes one job from the channel, answers it, returns.
///
/// A refusal is an answer, not an error: errors are for a channel or a machine that does not work.
pub fn run(channel: &OwnedFd) -> Result<(), CompilerError> {
    let received = redan_channel::recv::<Compile>(channel)?;
    let grant = EffectiveGrant::from_canonical_json(&received.message.grant);
    // A grant that does not read is refused below, whatever the engine.
    let native = grant.map_or(engine::Native::Plain, |grant| engine::Native::of(&grant));
    let engine = engine::compiler_engine(native)?;
    match compile(&engine, &received.message, &received.descriptors) {
        Ok(native) => {
            let file = redan_sealed::unsealed("native", &native).map_err(CompilerError::Answer)?;
            let length = ByteCount::new(u64::try_from(native.len()).unwrap_or(u64::MAX));
            let done = Compiled::Done {
                engine: engine::digest(&engine),
                length,
            };
            redan_channel::send(channel, &done, &[file.as_fd()])?;
        }
        Err(code) => redan_channel::send(channel, &Compiled::Refused { code }, &[])?,
    }
    Ok(())
}

fn compile(engine: &Engine, job: &Compile, descriptors: &[OwnedFd]) -> Result<Vec<u8>, Code> {
    let [file] = descriptors else {
        return Err(Code::Internal);
    };
    let grant = EffectiveGrant::from_canonical_json(&job.grant).map_err(|_| Code::PolicyInvalid)?;
    let sealed = Sealed::read(file).map_err(|error| match error {
        SealedError::Length => Code::MalformedComponent,
        _ => Code::Internal,
    })?;
    if Digest::of(sealed.bytes()) != job.digest {
        return Err(Code::DigestMismatch);
    }
    let component = admit(engine, sealed.bytes(), &grant)?;
    component.serialize().map_err(|_| Code::CompilerFailed)
}

/// Admission, cheapest check first: nothing is compiled that will be refused.
///
/// Also for tools that look at a component without running it.
pub fn admit(engine: &Engine, bytes: &[u8], grant: &EffectiveGrant) -> Result<Component, Code> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > COMPONENT_LEN_MAX.get() {
        return Err(Code::ComponentTooLarge);
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(Code::PrecompiledCode);
    }
    // The preamble alone tells (component model, binary format: version 0x0d, layer 1; core: version 1, layer 0).
    if wasmparser::Parser::is_core_wasm(bytes) {
        return Err(Code::CoreModule);
    }
    if !wasmparser::Parser::is_component(bytes) {
        return Err(Code::MalformedComponent);
    }
    let (imports, exports) = surface(bytes).ok_or(Code::MalformedComponent)?;
    redan_policy::imports::admit(&imports, &exports, grant).map_err(|(code, _capability)| code)?;
    if grant.world.is_wasi_0_3() && is_composed(bytes) {
        return Err(Code::WasiComposed);
    }
    Component::from_binary(engine, bytes).map_err(|_| Code::MalformedComponent)
}

/// Whether a component inside lifts functions. Each call of such a function from its sibling would be a task with a stack of its own, as
/// many as a guest has handles; a component that lifts at its own level alone has the one task the host started.
fn is_composed(bytes: &[u8]) -> bool {
    use wasmparser::{CanonicalFunction, Parser, Payload};
    let mut depth = 0_u32;
    Parser::new(0).parse_all(bytes).any(|payload| match payload {
        Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => {
            depth = depth.saturating_add(1);
            false
        }
        Ok(Payload::End(_)) => {
            depth = depth.saturating_sub(1);
            false
        }
        Ok(Payload::ComponentCanonicalSection(section)) if depth > 0 => section
            .into_iter()
            .any(|function| matches!(function, Ok(CanonicalFunction::Lift { .. }))),
        // What does not parse is refused by what parses it in earnest.
        Err(_) | Ok(_) => false,
    })
}

/// Names of the component's own imports and exports.
pub fn surface(bytes: &[u8]) -> Option<(Vec<String>, Vec<String>)> {
    use wasmparser::{Parser, Payload};
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.ok()? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth = depth.checked_add(1)?;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.ok()?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.ok()?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Some((imports, exports))
}
