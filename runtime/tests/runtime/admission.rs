//! What the compiler refuses before it compiles anything.

use crate::device::{compile, compile_job};
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::World;
use redan_protocol::ipc::Compile;
use redan_protocol::wire::COMPONENT_LEN_MAX;
use redan_protocol::{Code, Digest};
use std::os::fd::AsFd;

fn command() -> EffectiveGrant {
    grants::bare("acme/hostile", World::Command)
}

fn refusal(text: &str, grant: &EffectiveGrant) -> Option<Code> {
    compile(&wat::parse_str(text).unwrap(), grant).err()
}

/// A command that imports one interface.
fn importing(interface: &str) -> String {
    format!(
        "(component
           (import \"{interface}\" (instance))
           (core module $m (func (export \"run\") (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           (func $run (result (result)) (canon lift (core func $i \"run\")))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $e)))"
    )
}

#[test]
fn a_component_within_its_grant_is_compiled() {
    assert!(compile(&guests::harmless("well-behaved"), &command()).is_ok());
}

#[test]
fn a_core_module_is_refused() {
    let module = "(module (func (export \"_start\")))";
    assert_eq!(refusal(module, &command()), Some(Code::CoreModule));
}

#[test]
fn precompiled_native_code_is_refused() {
    let native = compile(&guests::harmless("well-behaved"), &command()).unwrap();
    assert_eq!(compile(&native, &command()), Err(Code::PrecompiledCode));
    let engine = wasmtime::Engine::default();
    let module = engine
        .precompile_module(&wat::parse_str("(module)").unwrap())
        .unwrap();
    assert_eq!(compile(&module, &command()), Err(Code::PrecompiledCode));
}

#[test]
fn an_import_nobody_declared_is_refused() {
    for interface in [
        "evil:host/shell@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:keyvalue/store@0.2.0-draft",
        "wasi:config/store@0.2.0-rc.1",
        "wasi:logging/logging@0.1.0-draft",
    ] {
        let refused = refusal(&importing(interface), &command());
        assert_eq!(refused, Some(Code::UndeclaredImport), "{interface}");
    }
}

#[test]
fn sockets_are_refused_by_name_unless_the_grant_has_a_stub_for_them() {
    for interface in [
        "tcp",
        "tcp-create-socket",
        "udp",
        "udp-create-socket",
        "network",
        "instance-network",
        "ip-name-lookup",
    ] {
        let text = importing(&format!("wasi:sockets/{interface}@0.2.0"));
        assert_eq!(
            refusal(&text, &command()),
            Some(Code::SocketsNotOffered),
            "{interface}"
        );
        let mut stubbed = command();
        stubbed.denied_optional.push("net.sockets".to_owned());
        assert_eq!(refusal(&text, &stubbed), None, "{interface}");
    }
}

#[test]
fn an_import_hidden_in_a_nested_component_reaches_nothing() {
    // The nested component's import must be satisfied by the outer one, which has nothing to give but its own imports.
    let nested = "(component
        (component $inner (import \"evil:host/shell@0.2.0\" (instance)))
        (core module $m (func (export \"run\") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i \"run\")))
        (instance $e (export \"run\" (func $run)))
        (export \"wasi:cli/run@0.2.0\" (instance $e)))";
    assert_eq!(refusal(nested, &command()), None);
    let outside = nested.replacen(
        "(component",
        "(component (import \"evil:host/shell@0.2.0\" (instance))",
        1,
    );
    assert_eq!(refusal(&outside, &command()), Some(Code::UndeclaredImport));
    let after = nested.replace(
        "(core module $m",
        "(import \"evil:host/shell@0.2.0\" (instance)) (core module $m",
    );
    assert_eq!(refusal(&after, &command()), Some(Code::UndeclaredImport));
}

#[test]
fn a_component_of_another_world_is_refused() {
    let mut proxy = command();
    proxy.world = World::HttpProxy;
    let command_guest = guests::harmless("well-behaved");
    assert_eq!(compile(&command_guest, &proxy), Err(Code::MissingExport));
    assert_eq!(refusal("(component)", &command()), Some(Code::MissingExport));
    let mut reaching = command();
    reaching.denied_optional.push("net.http".to_owned());
    assert_eq!(
        compile(&guests::hostile_service(), &reaching),
        Err(Code::MissingExport)
    );
}

#[test]
fn a_component_of_another_wasi_is_refused() {
    let text = importing("wasi:cli/environment@0.2.0").replace("wasi:cli/run@0.2.0", "wasi:cli/run@0.3.0");
    assert_eq!(refusal(&text, &command()), Some(Code::WasiNotOffered));
    let text = importing("wasi:cli/environment@0.3.0");
    assert_eq!(refusal(&text, &command()), Some(Code::WasiNotOffered));
    let text = importing("wasi:cli/environment@0.2.0").replace("wasi:cli/run@0.2.0", "wasi:cli/walk@0.2.0");
    assert_eq!(refusal(&text, &command()), Some(Code::MissingExport));
}

#[test]
fn a_component_one_byte_over_the_limit_is_refused() {
    let limit = usize::try_from(COMPONENT_LEN_MAX.get()).unwrap();
    let mut bytes = guests::harmless("well-behaved");
    // A custom section fills it up: its content is read by nobody.
    let header = 1 + 4 + 2;
    let fill = limit - bytes.len() - header;
    bytes.push(0);
    let length = u32::try_from(fill + 2).unwrap();
    for shift in [0, 7, 14, 21] {
        let more = if shift < 21 { 0x80 } else { 0 };
        bytes.push(u8::try_from(length >> shift & 0x7f).unwrap() | more);
    }
    bytes.extend([1, b'x']);
    bytes.resize(limit, 0);
    assert!(compile(&bytes, &command()).is_ok());
    bytes.push(0);
    assert_eq!(compile(&bytes, &command()), Err(Code::ComponentTooLarge));
}

#[test]
fn proposals_that_are_off_are_malformed() {
    for module in [
        "(memory 1 2 shared)",
        "(memory i64 1)",
        "(type (struct (field i32)))",
        "(tag)",
        "(func (result f32) unreachable f32x4.relaxed_madd unreachable)",
    ] {
        let text =
            importing("wasi:io/error@0.2.0").replace("(core module $m", &format!("(core module $m {module}"));
        assert_eq!(
            refusal(&text, &command()),
            Some(Code::MalformedComponent),
            "{module}"
        );
    }
}

#[test]
fn bytes_that_are_no_wasm_or_end_early_are_malformed() {
    assert_eq!(compile(b"\x7fELF", &command()), Err(Code::MalformedComponent));
    assert_eq!(compile(b"", &command()), Err(Code::MalformedComponent));
    let mut cut = guests::harmless("well-behaved");
    cut.truncate(cut.len() - 5);
    assert_eq!(compile(&cut, &command()), Err(Code::MalformedComponent));
}

#[test]
fn the_compiler_believes_neither_file_nor_job() {
    let wasm = guests::harmless("well-behaved");
    let job = Compile {
        digest: Digest::of(&wasm),
        grant: command().canonical_json(),
    };
    let sealed = redan_sealed::seal("component", &wasm).unwrap();
    let other = redan_sealed::seal("component", b"other bytes").unwrap();
    let open = redan_sealed::unsealed("component", &wasm).unwrap();
    assert!(compile_job(&job, &[sealed.as_fd()]).is_ok());
    assert_eq!(compile_job(&job, &[other.as_fd()]), Err(Code::DigestMismatch));
    assert_eq!(compile_job(&job, &[open.as_fd()]), Err(Code::Internal));
    assert_eq!(compile_job(&job, &[]), Err(Code::Internal));
    let two = [sealed.as_fd(), sealed.as_fd()];
    assert_eq!(compile_job(&job, &two), Err(Code::Internal));
    let garbled = Compile {
        grant: b"{}".to_vec(),
        ..job
    };
    assert_eq!(compile_job(&garbled, &[sealed.as_fd()]), Err(Code::PolicyInvalid));
}
