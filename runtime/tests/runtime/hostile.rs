//! Guests at the edges of the calling convention, and attacks that come in tables. The executor serves somebody else after each.

use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Mode, World};
use redan_protocol::{Code, Millis};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// The outcome of a component in the text format whose `run` is lifted as `lift` says.
fn outcome(device: &mut Device, parts: &str, lift: &str, grant: &EffectiveGrant) -> Result<(), Code> {
    let text = format!(
        "(component
           {parts}
           (func $run (result (result)) (canon lift (core func $i \"run\") {lift}))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $e)))"
    );
    let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let slot = device.load(&wasm, grant).unwrap();
    let outcome = device.run(slot);
    device.unload(slot, Millis::seconds(60));
    outcome
}

fn quick() -> EffectiveGrant {
    let mut grant = grants::job("none");
    grant.limits.cpu_per_call = Millis::new(50);
    grant
}

#[test]
fn a_loop_of_bulk_operations_is_cut_off() {
    let mut device = Device::start();
    for (has, body) in [
        (
            "(memory 200)",
            "(memory.fill (i32.const 0) (i32.const 1) (i32.const 13000000))",
        ),
        (
            "(memory 200)",
            "(memory.copy (i32.const 0) (i32.const 64) (i32.const 13000000))",
        ),
        (
            "(memory 1) (data $d \"xxxx\")",
            "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 4))",
        ),
        ("(memory 1 1)", "(drop (memory.grow (i32.const 1)))"),
        (
            "(table 10000 funcref)",
            "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 10000))",
        ),
        (
            "(table 10000 funcref)",
            "(table.copy (i32.const 0) (i32.const 1) (i32.const 9999))",
        ),
        (
            "(table 10 funcref) (func $f) (elem $e func $f)",
            "(table.init $e (i32.const 0) (i32.const 0) (i32.const 1))",
        ),
        (
            "(table 1 1 funcref)",
            "(drop (table.grow (ref.null func) (i32.const 1)))",
        ),
    ] {
        let parts = format!(
            "(core module $m {has} (func (export \"run\") (result i32) (loop {body} (br 0)) unreachable))
             (core instance $i (instantiate $m))"
        );
        let came = outcome(&mut device, &parts, "", &quick());
        assert_eq!(came, Err(Code::CpuLimit), "{body}");
    }
    device.serves_others();
}

/// A guest whose `realloc`, called by the host with an answer, does this.
fn with_realloc(body: &str) -> String {
    format!(
        "(import \"wasi:cli/environment@0.2.0\" (instance $env
            (export \"get-environment\" (func (result (list (tuple string string)))))))
         (core module $libc
            (memory (export \"memory\") 1)
            (table (export \"table\") 1 funcref)
            (type $again (func))
            (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) {body}))
         (core instance $libc (instantiate $libc))
         (core func $get (canon lower (func $env \"get-environment\")
            (memory (core memory $libc \"memory\")) (realloc (core func $libc \"realloc\"))))
         (core module $m
            (import \"host\" \"get\" (func $get (param i32)))
            (import \"libc\" \"table\" (table 1 funcref))
            (func $again (call $get (i32.const 8)))
            (elem (i32.const 0) $again)
            (func (export \"run\") (result i32) (call $again) i32.const 0))
         (core instance $i (instantiate $m
            (with \"host\" (instance (export \"get\" (func $get))))
            (with \"libc\" (instance $libc))))"
    )
}

/// A guest with a resource whose destructor does this.
fn with_destructor(body: &str) -> String {
    format!(
        "(core module $d
            (table (export \"table\") 1 funcref)
            (type $again (func))
            (func (export \"gone\") (param i32) {body}))
         (core instance $d (instantiate $d))
         (type $r (resource (rep i32) (dtor (core func $d \"gone\"))))
         (core func $new (canon resource.new $r))
         (core func $drop (canon resource.drop $r))
         (core module $m
            (import \"host\" \"new\" (func $new (param i32) (result i32)))
            (import \"host\" \"drop\" (func $drop (param i32)))
            (import \"d\" \"table\" (table 1 funcref))
            (func $again (call $drop (call $new (i32.const 1))))
            (elem (i32.const 0) $again)
            (func (export \"run\") (result i32) (call $again) i32.const 0))
         (core instance $i (instantiate $m
            (with \"host\" (instance (export \"new\" (func $new)) (export \"drop\" (func $drop))))
            (with \"d\" (instance $d))))"
    )
}

#[test]
fn code_that_the_host_calls_back_is_cut_off_too() {
    let mut device = Device::start();
    let forever = "(loop (br 0)) unreachable";
    let grant = quick();
    let came = outcome(&mut device, &with_realloc(forever), "", &grant);
    assert_eq!(came, Err(Code::CpuLimit), "while it makes room for an answer");
    let came = outcome(&mut device, &with_destructor(forever), "", &grant);
    assert_eq!(came, Err(Code::CpuLimit), "while a resource of its own ends");
    let parts = "(core module $m
            (func (export \"run\") (result i32) i32.const 0)
            (func (export \"after\") (param i32) (loop (br 0))))
         (core instance $i (instantiate $m))";
    let came = outcome(
        &mut device,
        parts,
        "(post-return (core func $i \"after\"))",
        &grant,
    );
    assert_eq!(came, Err(Code::CpuLimit), "after its answer");
    device.serves_others();
}

#[test]
fn recursion_through_the_host_ends_at_the_guest() {
    let mut device = Device::start();
    let again = "(call_indirect (type $again) (i32.const 0))";
    let came = outcome(&mut device, &with_destructor(again), "", &quick());
    assert_eq!(came, Err(Code::StackLimit), "a destructor that ends another one");
    let came = outcome(
        &mut device,
        &with_realloc(&format!("{again} unreachable")),
        "",
        &quick(),
    );
    assert_eq!(
        came,
        Err(Code::Trapped),
        "an answer asked for while another one comes"
    );
    device.serves_others();
}

#[test]
fn a_table_larger_than_the_address_space_is_refused() {
    let mut device = Device::start();
    let grant = grants::bare("acme/hostile", World::Command);
    for has in [
        "(table 0xffffffff funcref)",
        "(table 0x7fffffff 0xffffffff funcref)",
    ] {
        assert_eq!(
            device.load(&guests::many(1, has), &grant),
            Err(Code::TableLimit),
            "{has}"
        );
    }
    let most = guests::many(1, "(table 10000000 0xffffffff funcref)");
    assert_eq!(device.load(&most, &grant), Err(Code::TableLimit));
    for by in ["0xffffffff", "0x7fffffff", "0x20000000"] {
        let parts = format!(
            "(core module $m (table 1 funcref) (func (export \"run\") (result i32)
                (if (i32.eq (table.grow (ref.null func) (i32.const {by})) (i32.const -1)) (then unreachable))
                i32.const 0))
             (core instance $i (instantiate $m))"
        );
        let came = outcome(&mut device, &parts, "", &grant);
        assert_eq!(came, Err(Code::TableLimit), "{by}");
    }
    device.serves_others();
}

#[test]
fn strings_and_enumerations_that_are_none_do_not_reach_the_host() {
    let mut device = Device::start();
    let (fine, trapped, much) = (Ok(()), Err(Code::Trapped), Err(Code::HostcallLimit));
    // Encoding, level, where the message is, its length; 3 MiB of memory, text at 16, other bytes at 64 and 80.
    for (encoding, level, at, length, expected) in [
        ("utf8", "4", "16", "8", fine),
        ("utf8", "6", "16", "8", trapped),
        ("utf8", "0x80000004", "16", "8", trapped),
        ("utf8", "0xffffffff", "16", "8", trapped),
        ("utf8", "4", "16", "0xffffffff", trapped),
        ("utf8", "4", "0xfffffff8", "8", trapped),
        ("utf8", "4", "0xffffffff", "0xffffffff", trapped),
        ("utf8", "4", "64", "2", trapped),
        ("utf8", "4", "65536", "2000000", much),
        ("utf16", "4", "16", "4", fine),
        ("utf16", "4", "17", "4", trapped),
        ("utf16", "4", "80", "1", trapped),
        ("utf16", "4", "16", "0x80000000", trapped),
        ("utf16", "4", "16", "0xffffffff", trapped),
        ("utf16", "4", "65536", "1000000", much),
        ("latin1+utf16", "4", "16", "8", fine),
        ("latin1+utf16", "4", "16", "0x80000004", fine),
        ("latin1+utf16", "4", "17", "0x80000004", trapped),
        ("latin1+utf16", "4", "17", "8", trapped),
        ("latin1+utf16", "4", "80", "0x80000001", trapped),
        ("latin1+utf16", "4", "16", "0xffffffff", trapped),
        ("latin1+utf16", "4", "16", "0x7fffffff", trapped),
        ("latin1+utf16", "4", "65536", "2000000", much),
        ("latin1+utf16", "4", "65536", "0x800f4240", much),
    ] {
        let parts = format!(
            "(import \"wasi:logging/logging@0.1.0-draft\" (instance $l
                (type $names (enum \"trace\" \"debug\" \"info\" \"warn\" \"error\" \"critical\"))
                (export \"level\" (type $level (eq $names)))
                (export \"log\" (func (param \"level\" $level) (param \"context\" string) (param \"message\" string)))))
             (core module $libc (memory (export \"memory\") 48)
                (data (i32.const 16) \"a message\") (data (i32.const 64) \"\\ff\\fe\") (data (i32.const 80) \"\\00\\d8\"))
             (core instance $libc (instantiate $libc))
             (core func $log (canon lower (func $l \"log\") (memory (core memory $libc \"memory\")) string-encoding={encoding}))
             (core module $m (import \"host\" \"log\" (func $log (param i32 i32 i32 i32 i32)))
                (func (export \"run\") (result i32)
                    (call $log (i32.const {level}) (i32.const 0) (i32.const 0) (i32.const {at}) (i32.const {length}))
                    i32.const 0))
             (core instance $i (instantiate $m (with \"host\" (instance (export \"log\" (func $log))))))"
        );
        let came = outcome(&mut device, &parts, "", &grants::job("none"));
        assert_eq!(came, expected, "{encoding}: level {level}, {length} at {at}");
    }
    device.serves_others();
}

#[test]
fn lists_within_lists_are_copied_within_the_limit_or_not_at_all() {
    let mut device = Device::start();
    let (fine, trapped, much) = (Ok(()), Err(Code::Trapped), Err(Code::HostcallLimit));
    // How many pairs, where the list is, and the length of each value: all values are the same bytes.
    for (count, at, length, expected) in [
        ("3", "65536", "100", fine),
        ("3", "65537", "100", trapped),
        ("3", "65538", "100", trapped),
        ("0xffffffff", "65536", "100", trapped),
        ("0x10000001", "65536", "100", trapped),
        ("3", "0xfffffff0", "100", trapped),
        ("3", "65536", "0xffffffff", trapped),
        ("1000", "65536", "100000", much),
        ("40000", "65536", "60", much),
    ] {
        let parts = format!(
            "(import \"wasi:keyvalue/store@0.2.0-draft\" (instance $s
                (export \"bucket\" (type $b (sub resource)))
                (type $cases (variant (case \"no-such-store\") (case \"access-denied\") (case \"other\" string)))
                (export \"error\" (type $e (eq $cases)))
                (export \"open\" (func (param \"identifier\" string) (result (result (own $b) (error $e)))))))
             (alias export $s \"bucket\" (type $bucket))
             (alias export $s \"error\" (type $error))
             (import \"wasi:keyvalue/batch@0.2.0-draft\" (instance $batch
                (alias outer 1 $bucket (type $b0)) (export \"bucket\" (type $b (eq $b0)))
                (alias outer 1 $error (type $e0)) (export \"error\" (type $e (eq $e0)))
                (export \"set-many\" (func (param \"bucket\" (borrow $b))
                    (param \"key-values\" (list (tuple string (list u8)))) (result (result (error $e)))))))
             (core module $libc (memory (export \"memory\") 48)
                (data (i32.const 16) \"default\")
                (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) i32.const 1024))
             (core instance $libc (instantiate $libc))
             (core func $open (canon lower (func $s \"open\") (memory (core memory $libc \"memory\")) (realloc (core func $libc \"realloc\"))))
             (core func $set (canon lower (func $batch \"set-many\") (memory (core memory $libc \"memory\")) (realloc (core func $libc \"realloc\"))))
             (core module $m
                (import \"libc\" \"memory\" (memory 48))
                (import \"host\" \"open\" (func $open (param i32 i32 i32)))
                (import \"host\" \"set\" (func $set (param i32 i32 i32 i32)))
                (func (export \"run\") (result i32) (local $to i32)
                    (local.set $to (i32.const 65536))
                    (loop
                        (i32.store (local.get $to) (i32.const 16))
                        (i32.store (i32.add (local.get $to) (i32.const 4)) (i32.const 7))
                        (i32.store (i32.add (local.get $to) (i32.const 8)) (i32.const 1024))
                        (i32.store (i32.add (local.get $to) (i32.const 12)) (i32.const {length}))
                        (local.set $to (i32.add (local.get $to) (i32.const 16)))
                        (br_if 0 (i32.lt_u (local.get $to) (i32.const 1000000))))
                    (call $open (i32.const 16) (i32.const 7) (i32.const 32))
                    (if (i32.load8_u (i32.const 32)) (then unreachable))
                    (call $set (i32.load (i32.const 36)) (i32.const {at}) (i32.const {count}) (i32.const 48))
                    (if (i32.load8_u (i32.const 48)) (then unreachable))
                    i32.const 0))
             (core instance $i (instantiate $m (with \"libc\" (instance $libc))
                (with \"host\" (instance (export \"open\" (func $open)) (export \"set\" (func $set))))))"
        );
        let came = outcome(&mut device, &parts, "", &grants::job("none"));
        assert_eq!(came, expected, "{count} of {length} bytes at {at}");
    }
    device.serves_others();
}

/// Names of an interface's enumeration or flags.
fn quoted(names: &str) -> String {
    format!("\"{}\"", names.split(' ').collect::<Vec<_>>().join("\" \""))
}

const ERRORS: &str = "access would-block already bad-descriptor busy deadlock quota exist file-too-large \
    illegal-byte-sequence in-progress interrupted invalid io is-directory loop too-many-links message-size \
    name-too-long no-device no-entry no-lock insufficient-memory insufficient-space not-directory not-empty \
    not-recoverable unsupported no-tty no-such-device overflow not-permitted pipe read-only invalid-seek \
    text-file-busy cross-device";

#[test]
fn flags_with_bits_that_are_none_mean_nothing_more() {
    let mut device = Device::start();
    let errors = quoted(ERRORS);
    let descriptor =
        quoted("read write file-integrity-sync data-integrity-sync requested-write-sync mutate-directory");
    // Of a file that is there: read it; with every bit that has no name as well.
    for (path_flags, open_flags, flags, expected) in [
        ("1", "0", "1", Ok(())),
        ("0xfffffffe", "0xfffffff0", "0xffffffc1", Ok(())),
        ("0x80000000", "0x80000000", "0x80000001", Ok(())),
        ("0xffffffff", "0xffffffff", "0xffffffff", Err(Code::Trapped)),
    ] {
        let parts = format!(
            "(import \"wasi:filesystem/types@0.2.0\" (instance $t
                (export \"descriptor\" (type $d (sub resource)))
                (type $errors (enum {errors})) (export \"error-code\" (type $error (eq $errors)))
                (type $p (flags \"symlink-follow\")) (export \"path-flags\" (type $path (eq $p)))
                (type $o (flags \"create\" \"directory\" \"exclusive\" \"truncate\")) (export \"open-flags\" (type $open (eq $o)))
                (type $f (flags {descriptor})) (export \"descriptor-flags\" (type $flags (eq $f)))
                (export \"[method]descriptor.open-at\" (func (param \"self\" (borrow $d)) (param \"path-flags\" $path)
                    (param \"path\" string) (param \"open-flags\" $open) (param \"flags\" $flags)
                    (result (result (own $d) (error $error)))))))
             (alias export $t \"descriptor\" (type $descriptor))
             (import \"wasi:filesystem/preopens@0.2.0\" (instance $pre
                (alias outer 1 $descriptor (type $d0)) (export \"descriptor\" (type $d (eq $d0)))
                (export \"get-directories\" (func (result (list (tuple (own $d) string)))))))
             (core module $libc (memory (export \"memory\") 1) (data (i32.const 16) \"kept\")
                (func (export \"realloc\") (param i32 i32 i32 i32) (result i32)
                    (i32.add (i32.const 1024) (i32.mul (local.get 3) (i32.const 16)))))
             (core instance $libc (instantiate $libc))
             (core func $get (canon lower (func $pre \"get-directories\")
                (memory (core memory $libc \"memory\")) (realloc (core func $libc \"realloc\"))))
             (core func $open (canon lower (func $t \"[method]descriptor.open-at\") (memory (core memory $libc \"memory\"))))
             (core module $m
                (import \"libc\" \"memory\" (memory 1))
                (import \"host\" \"get\" (func $get (param i32)))
                (import \"host\" \"open\" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
                (func (export \"run\") (result i32)
                    (call $get (i32.const 32))
                    (call $open (i32.load (i32.load (i32.const 32))) (i32.const {path_flags}) (i32.const 16) (i32.const 4)
                        (i32.const {open_flags}) (i32.const {flags}) (i32.const 48))
                    (if (i32.load8_u (i32.const 48)) (then unreachable))
                    i32.const 0))
             (core instance $i (instantiate $m (with \"libc\" (instance $libc))
                (with \"host\" (instance (export \"get\" (func $get)) (export \"open\" (func $open))))))"
        );
        let volume = device.volume("hostile");
        std::fs::write(volume.join("kept"), "kept").unwrap();
        let came = outcome(&mut device, &parts, "", &with_volume("none", Mode::ReadWrite));
        assert_eq!(came, expected, "{path_flags}, {open_flags}, {flags}");
        assert_eq!(tree(&volume).len(), 1, "nothing was made by a bit without a name");
        assert_eq!(std::fs::read(volume.join("kept")).unwrap(), b"kept");
    }
    device.serves_others();
}

/// The job's attack.
fn attack(device: &mut Device, grant: &EffectiveGrant) -> Result<(), Code> {
    let slot = device.load(&guests::hostile_job(), grant).unwrap();
    let outcome = device.run(slot);
    device.unload(slot, Millis::seconds(60));
    outcome
}

fn with_volume(attack: &str, mode: Mode) -> EffectiveGrant {
    let mut grant = grants::job(attack);
    grant.fs.push(grants::volume(mode));
    grant
}

fn with(grant: &mut EffectiveGrant, name: &str, value: &str) {
    grant.env.insert(name.to_owned(), value.to_owned());
}

#[test]
fn waits_for_many_things_or_for_ages_are_cut_off_and_input_has_ended() {
    let mut device = Device::start();
    for name in ["poll-many", "sleep-for-ages"] {
        let mut grant = grants::job(name);
        grant.limits.wall_call = Millis::new(500);
        assert_eq!(attack(&mut device, &grant), Err(Code::WallLimit), "{name}");
    }
    assert_eq!(attack(&mut device, &grants::job("read-input")), Ok(()));
    device.serves_others();
}

#[test]
fn every_kind_of_resource_that_is_leaked_ends_the_guest() {
    let mut device = Device::start();
    for (kind, code) in [
        ("fields", Code::HandleLimit),
        ("outgoing-request", Code::HandleLimit),
        ("outgoing-response", Code::HandleLimit),
        ("outgoing-body", Code::HandleLimit),
        ("request-options", Code::HandleLimit),
        ("stdin", Code::HandleLimit),
        ("stdout", Code::HandleLimit),
        ("stderr", Code::HandleLimit),
        ("pollable-of-input", Code::HandleLimit),
        ("pollable-of-output", Code::HandleLimit),
        ("instant", Code::HandleLimit),
        ("preopen", Code::HandleLimit),
        ("descriptor", Code::DescriptorLimit),
        ("directory-entry-stream", Code::HandleLimit),
        ("bucket", Code::HandleLimit),
    ] {
        let mut grant = with_volume("leak", Mode::ReadWrite);
        with(&mut grant, "TARGET", kind);
        assert_eq!(attack(&mut device, &grant), Err(code), "{kind}");
    }
    device.serves_others();
}

/// Everything below a folder: name, what a link says or a file holds, and when it was changed.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let status = path.symlink_metadata().unwrap();
        let content = if status.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else if status.is_dir() {
            found.extend(tree(&path));
            "folder".to_owned()
        } else {
            format!(
                "{:?} {:?}",
                std::fs::read(&path).unwrap().len(),
                status.modified().unwrap()
            )
        };
        found.push(format!("{} {content}", path.display()));
    }
    found.sort();
    found
}

const OPERATIONS: &[&str] = &[
    "open",
    "create",
    "truncate",
    "create-new",
    "open-folder",
    "open-folder-to-write",
    "stat",
    "hash",
    "readlink",
    "make-folder",
    "remove-folder",
    "unlink",
    "symlink",
    "link-from",
    "link-to",
    "rename-from",
    "rename-to",
    "set-times",
];

#[test]
fn no_operation_reaches_out_of_a_volume_by_any_kind_of_path() {
    let mut device = Device::start();
    for (operation, mode) in OPERATIONS
        .iter()
        .flat_map(|name| [(name, Mode::ReadWrite), (name, Mode::Read)])
    {
        let volume = device.volume("hostile");
        let around = volume.parent().unwrap().to_owned();
        std::fs::remove_dir_all(&around).unwrap();
        for folder in ["state/folder", "state/empty", "secret-folder"] {
            std::fs::create_dir_all(around.join(folder)).unwrap();
        }
        let outside = around.join("secret");
        std::fs::write(&outside, vec![b'4'; 4321]).unwrap();
        std::fs::write(around.join("secret-folder/inner"), "4321 secret").unwrap();
        std::fs::write(volume.join("kept"), "kept").unwrap();
        std::fs::write(volume.join("spare"), "spare").unwrap();
        for (to, from) in [
            ("kept", "planted-inside"),
            ("../secret", "planted-relative"),
            (outside.to_str().unwrap(), "planted-absolute"),
            ("..", "planted-folder"),
            ("/", "planted-root"),
            ("planted-folder", "planted-chain"),
            ("../..", "folder/planted-up"),
        ] {
            symlink(to, volume.join(from)).unwrap();
        }
        let (mut before, inside) = (tree(&around), tree(&volume));
        before.retain(|line| !line.contains("/state"));
        let mut grant = with_volume("operation", mode);
        with(&mut grant, "OPERATION", operation);
        with(
            &mut grant,
            "TARGET",
            outside.canonicalize().unwrap().to_str().unwrap(),
        );
        if mode == Mode::Read {
            with(&mut grant, "READ_ONLY", "yes");
        }
        grant.fs[0].files = 100;
        assert_eq!(attack(&mut device, &grant), Ok(()), "{operation}, {mode:?}");
        let mut after = tree(&around);
        after.retain(|line| !line.contains("/state"));
        assert_eq!(after, before, "{operation}, {mode:?}: nothing outside is changed");
        if mode == Mode::Read {
            assert_eq!(tree(&volume), inside, "{operation}: nothing inside is changed");
        }
    }
    device.serves_others();
}

#[test]
fn times_before_1970_and_beyond_all_numbers_disturb_nobody() {
    let mut device = Device::start();
    let old = std::fs::File::create(device.volume("hostile").join("old")).unwrap();
    old.set_modified(UNIX_EPOCH - Duration::from_secs(1_000_000_000))
        .unwrap();
    assert_eq!(
        attack(&mut device, &with_volume("odd-times", Mode::ReadWrite)),
        Ok(())
    );
    device.serves_others();
}

#[test]
fn workloads_that_have_the_same_things_by_name_have_their_own() {
    let mut device = Device::start();
    let tenants = ["acme/a", "acme/b", "acme/a-b", "acme/state", "acme/default"];
    let marked = |tenant: &str| {
        let mut grant = with_volume("mark", Mode::ReadWrite);
        grant.component = tenant.parse().unwrap();
        with(&mut grant, "TARGET", &format!("mark of {tenant}"));
        grant
    };
    // Each after each: whoever comes second would find the first one's mark.
    for (one, other) in tenants.iter().flat_map(|one| tenants.map(|other| (one, other))) {
        for tenant in [one, &other] {
            assert_eq!(
                attack(&mut device, &marked(tenant)),
                Ok(()),
                "{tenant} beside {one} and {other}"
            );
        }
    }
    for tenant in tenants {
        let (_, workload) = tenant.split_once('/').unwrap();
        let lines = device.log(workload);
        assert!(
            lines
                .iter()
                .all(|line| line.ends_with(&format!("mark of {tenant}"))),
            "{lines:?}"
        );
    }
    device.serves_others();
}
