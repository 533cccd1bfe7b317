//! What a component is and wants, read without compiling it.

use crate::PublishError;
use redan_policy::Ask;
use redan_policy::imports::admit_ask;
use redan_protocol::Code;
use redan_protocol::wire::COMPONENT_LEN_MAX;
use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload, Validator, WasmFeatures};

/// What a component imports and exports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interfaces {
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

/// Reads and validates a component of WASI 0.2. Native code, core modules and proposals the runtime has off are refused.
pub fn inspect(bytes: &[u8]) -> Result<Interfaces, PublishError> {
    let found = surface(bytes)?;
    validate(bytes, false)?;
    Ok(found)
}

/// Names of its own imports and exports.
fn surface(bytes: &[u8]) -> Result<Interfaces, PublishError> {
    let refuse = |code, what: &str| {
        Err(PublishError::Component {
            code,
            what: what.to_owned(),
        })
    };
    if u64::try_from(bytes.len()).map_or(true, |length| length > COMPONENT_LEN_MAX.get()) {
        return refuse(Code::ComponentTooLarge, "the component is larger than 64 MiB");
    }
    if bytes.starts_with(b"\x7fELF") {
        return refuse(Code::PrecompiledCode, "this is native code, not a Wasm component");
    }
    if !bytes.starts_with(b"\0asm") {
        return refuse(
            Code::MalformedComponent,
            "this is no WebAssembly at all; name the .wasm file that the build wrote",
        );
    }
    let mut found = Interfaces::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else {
            return refuse(Code::MalformedComponent, "this is not a Wasm component");
        };
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return refuse(Code::CoreModule, "this is a core module, not a component");
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth = depth.saturating_add(1);
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let Ok(import) = import else {
                        return refuse(Code::MalformedComponent, "an import does not parse");
                    };
                    found.imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let Ok(export) = export else {
                        return refuse(Code::MalformedComponent, "an export does not parse");
                    };
                    if export.kind == ComponentExternalKind::Instance {
                        found.exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// After the cheap answers, so that "core module" is said before "does not validate as a component". `tasks`: with what WASI 0.3 needs
/// of the component model beyond 0.2.
fn validate(bytes: &[u8], tasks: bool) -> Result<(), PublishError> {
    // As the runtime's engine has them (`runtime/src/engine.rs`). Engines of other languages use the last two.
    let mut features = WasmFeatures::WASM2
        | WasmFeatures::COMPONENT_MODEL
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::MULTI_MEMORY;
    features.set(WasmFeatures::CM_ASYNC, tasks);
    if let Err(error) = Validator::new_with_features(features).validate_all(bytes) {
        let what = format!("the component does not validate at offset {}", error.offset());
        return Err(PublishError::Component {
            code: Code::MalformedComponent,
            what,
        });
    }
    Ok(())
}

/// Reads a component and holds it against its ask. Its names first: "WASI 0.3" says more than what of it does not validate.
pub fn check(bytes: &[u8], ask: &Ask) -> Result<Interfaces, PublishError> {
    let found = surface(bytes)?;
    admit_ask(&found.imports, &found.exports, ask).map_err(|refused| PublishError::Component {
        code: refused.code(),
        what: refused.to_string(),
    })?;
    validate(bytes, ask.world().is_wasi_0_3())?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_tasks_are_taken_for_wasi_0_3_alone() {
        for of_tasks in [
            "(type (stream u8))",
            "(type (future))",
            "(core func (canon task.return))",
        ] {
            let bytes = wat::parse_str(format!("(component {of_tasks})")).unwrap();
            validate(&bytes, true).unwrap();
            assert!(validate(&bytes, false).is_err(), "{of_tasks}");
        }
        let beyond = wat::parse_str("(component (core func (canon error-context.drop)))").unwrap();
        assert!(
            validate(&beyond, true).is_err(),
            "what the runtime has off stays off"
        );
    }
}
