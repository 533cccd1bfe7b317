//! What is refused before anybody signs it.

use redan_protocol::Code;
use redan_publish::PublishError;
use redan_publish::component::{check, inspect};

#[track_caller]
fn refused(bytes: &[u8], code: Code) {
    match inspect(bytes) {
        Err(PublishError::Component { code: found, .. }) => assert_eq!(found, code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_core_module_is_no_component() {
    refused(&wat::parse_str("(module)").unwrap(), Code::CoreModule);
}

#[test]
fn native_code_is_no_component() {
    let mut elf = b"\x7fELF\x02\x01\x01\x00".to_vec();
    elf.resize(4096, 0);
    refused(&elf, Code::PrecompiledCode);
}

#[test]
fn what_does_not_parse_is_no_component() {
    refused(b"", Code::MalformedComponent);
    refused(b"MZ", Code::MalformedComponent);
    let mut cut = wat::parse_str("(component (import \"a:b/c\" (instance)))").unwrap();
    cut.truncate(cut.len() - 3);
    refused(&cut, Code::MalformedComponent);
}

#[test]
fn a_component_over_64_mib_is_not_read() {
    let mut large = wat::parse_str("(component)").unwrap();
    large.resize(64 * 1024 * 1024 + 1, 0);
    refused(&large, Code::ComponentTooLarge);
}

const ASK: &str = r#"
schema = "redan.policy/1"
kind = "ask"
[subject]
name = "acme/tick"
version = "1.0.0"
world = "wasi:cli/command@0.2"
[[trigger.timer]]
every = "1m"
"#;

const COMMAND: &str = r#"
(component
  (import "wasi:cli/environment@0.2.3" (instance))
  IMPORT
  (core module $m (func (export "run") (result i32) i32.const 0))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $export (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $export)))
"#;

fn command(import: &str) -> Vec<u8> {
    wat::parse_str(COMMAND.replace("IMPORT", import)).unwrap()
}

#[test]
fn a_component_is_held_to_its_ask() {
    let ask = redan_policy::parse_ask("ask.toml", ASK).unwrap();
    assert!(check(&command(""), &ask).is_ok(), "positive control");
    let key_value = command("(import \"wasi:keyvalue/store@0.2.0-draft\" (instance))");
    match check(&key_value, &ask) {
        Err(PublishError::Component { code, what }) => {
            assert_eq!(code, Code::UndeclaredImport);
            assert!(what.contains("wasi:keyvalue/store"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_runtime_compiles_is_taken_and_what_it_has_off_is_not() {
    let within = |module: &str| wat::parse_str(format!("(component (core module {module}))")).unwrap();
    for module in [
        "(import \"a\" \"b\" (global $g i32)) (global i32 (i32.add (global.get $g) (i32.const 1)))",
        "(memory 1) (memory 1)",
        "(func $f (result i32) return_call $f)",
    ] {
        inspect(&within(module)).unwrap();
    }
    for module in [
        "(memory i64 1)",
        "(memory 1 1 shared)",
        "(tag $e)",
        "(type (struct))",
    ] {
        refused(&within(module), Code::MalformedComponent);
    }
}
