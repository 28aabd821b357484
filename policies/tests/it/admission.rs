//! What is refused at the door, with which code and which words.

use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_core::digest::Sha256;
use tidegate_core::policy::SettingValue;
use tidegate_policies::{Ceilings, Host};

use crate::rig::{self, RETRY, SELECT};

fn refused(bytes: &[u8]) -> (String, String) {
    let rejection = rig::host().admit(bytes).expect_err("it is not admitted");
    (rejection.code.to_owned(), rejection.why)
}

#[track_caller]
fn check(bytes: &[u8], code: &str, why: &str) {
    let (found, text) = refused(bytes);
    assert_eq!(found, code, "{text}");
    assert!(text.contains(why), "{text:?} should say {why:?}");
}

fn plain() -> String {
    rig::retry_after("(i64.const 7)")
}

#[test]
fn a_good_module_tells_who_it_is() {
    let bytes = rig::fixture("suite");
    let module = rig::host().admit(&bytes).unwrap();
    assert_eq!(module.hash(), Sha256::of(&bytes));
    let facts = module.facts();
    assert_eq!((facts.name.as_str(), facts.version.as_str()), ("fixture", "1.0.0"));
    assert_eq!((facts.summary.as_str(), facts.size), ("made by hand", bytes.len() as u64));
    assert_eq!((facts.patience_ms, &facts.signed_by), (0, &None));
    let about = module.about();
    assert_eq!(*about.reasons, [String::from("one"), String::from("two")]);
    assert_eq!(about.settings.len(), 1);
    let setting = &about.settings[0];
    assert_eq!((setting.key.as_str(), setting.help.as_str()), ("uploads", "uploads at once"));
    assert_eq!(setting.default, SettingValue::Int(2));
}

#[test]
fn a_module_of_twelve_megabytes_is_too_large() {
    let mut bytes = rig::fixture("suite");
    bytes.resize(12 << 20, 0);
    check(&bytes, "too_large", "12582912 bytes; a module may have 262144");
}

#[test]
fn what_is_no_component_is_named() {
    check(b"", "not_a_component", "not a WebAssembly component");
    check(b"#!/bin/sh\n", "not_a_component", "not a WebAssembly component");
    check(&rig::core(&plain()), "not_a_component", "a core module, not a component: `tidegate policy build`");
}

#[test]
fn a_start_section_is_refused() {
    let body = format!("(func $begin) (start $begin) {}", plain());
    check(&rig::component(&body), "limits", "has a start section");
}

#[test]
fn two_memories_are_refused() {
    let text = "(component (core module (memory 1) (memory 1))
        (instance $i) (export \"tidegate:policy/meta@0.1.0\" (instance $i)) (export \"tidegate:policy/retry@0.1.0\" (instance $i)))";
    check(&wat::parse_str(text).unwrap(), "limits", "a core module has 2 memories; one is allowed");
}

#[test]
fn components_that_multiply_are_refused() {
    // Each makes ten of the next: a hundred bytes per level, ten times the instances.
    let mut inner = String::from("(component $c)");
    for _ in 0..3 {
        inner = format!("(component $c {inner} {})", "(instance (instantiate $c))".repeat(10));
    }
    let text = format!("(component {inner})");
    check(&wat::parse_str(&text).unwrap(), "limits", "components lie more than two deep in each other");
    let many = format!("(component (component $c) {})", "(instance (instantiate $c))".repeat(200));
    check(&wat::parse_str(&many).unwrap(), "limits", "has more than 128 modules, components and instances");
}

#[test]
fn other_imports_than_types_and_diag_are_refused_by_name() {
    let text = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    check(
        &wat::parse_str(text).unwrap(),
        "imports",
        "imports wasi:clocks/wall-clock@0.2.0; a policy may import tidegate:policy/types and tidegate:policy/diag only",
    );
    let text = r#"(component (import "tidegate:policy/clock@0.1.0" (instance)))"#;
    check(&wat::parse_str(text).unwrap(), "imports", "imports tidegate:policy/clock@0.1.0;");
    // The right name with another function in it.
    let text = r#"(component (import "tidegate:policy/diag@0.1.0" (instance (export "now" (func (result u64)))))
        (instance $i) (export "tidegate:policy/meta@0.1.0" (instance $i)) (export "tidegate:policy/retry@0.1.0" (instance $i)))"#;
    check(&wat::parse_str(text).unwrap(), "types", "tidegate:policy/diag@0.1.0");
}

#[test]
fn another_version_is_refused_by_name_and_a_later_one_of_the_same_line_is_not() {
    let for_version = |version: &str| {
        let body =
            format!("{}\n{}", std::fs::read_to_string(rig::folder().join("meta.wat")).unwrap(), plain());
        let world = "world made { import diag; export meta; export retry; }";
        let name = format!("tidegate:policy@{version}");
        rig::made_for(
            &body.replace("@0.1.0#", &format!("@{version}#")),
            ("tidegate:policy@0.1.0", &name),
            world,
        )
    };
    for version in ["0.2.0", "1.1.0", "0.1.0-beta"] {
        let why = format!("policy was made for tidegate:policy@{version}; this site speaks 0.1");
        check(&for_version(version), "version", &why);
    }
    for version in ["0.1.1", "0.1.27"] {
        let module = rig::host().admit(&for_version(version)).unwrap();
        assert!(module.seat(tidegate_core::policy::Slot::Retry, &[]).is_ok(), "{version}");
    }
}

#[test]
fn wrong_types_are_named_with_their_place() {
    let world = "world made { import diag; export meta; export retry; }";
    let module = |change| rig::made_for(&plain(), change, world);
    check(
        &module((
            "record decision { action: action, memo: u64, reason: reason }",
            "record decision { action: action, memo: u64 }",
        )),
        "types",
        "retry.next: expected record of 3 fields, found 2 fields (in its result)",
    );
    check(
        &module((
            "enum error-class { vanished, damaged, rejected, other }",
            "enum error-class { vanished, other }",
        )),
        "types",
        "retry.next: type mismatch for field class: expected enum of 4 names, found 2 names (in its parameters)",
    );
    let renamed = rig::made_for(
        &plain().replace("#next", "#follow"),
        ("next: func(attempt: attempt)", "follow: func(attempt: attempt)"),
        world,
    );
    check(
        &renamed,
        "types",
        "retry.next: instance export `tidegate:policy/retry@0.1.0` does not have export `next`",
    );
}

#[test]
fn a_module_without_hooks_or_without_meta_is_refused() {
    let text = r#"(component (instance $i) (export "tidegate:policy/meta@0.1.0" (instance $i)))"#;
    check(
        &wat::parse_str(text).unwrap(),
        "no_hook",
        "exports none of the hooks of tidegate:policy: auto-scan, retry, concurrency, bandwidth, order",
    );
    let text = r#"(component (instance $i) (export "tidegate:policy/retry@0.1.0" (instance $i)))"#;
    check(&wat::parse_str(text).unwrap(), "types", "does not export tidegate:policy/meta");
}

#[test]
fn a_memory_over_the_limit_does_not_start() {
    let body = format!(
        "(memory (export \"memory\") 100)
        (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
        {}",
        plain()
    );
    check(&rig::component(&body), "limits", "memory minimum size of 100 pages exceeds memory limits");
}

/// A description of its own, with the given code for the two functions of `meta`.
fn told(describe: &str, configure: &str) -> Vec<u8> {
    let meta = std::fs::read_to_string(rig::folder().join("meta.wat")).unwrap();
    let (data, _) = meta.split_once("(func (export \"tidegate:policy/meta@0.1.0#describe\")").unwrap();
    rig::component(&format!(
        "{data}
        (func (export \"tidegate:policy/meta@0.1.0#describe\") (result i32) {describe})
        (func (export \"tidegate:policy/meta@0.1.0#configure\") (param i32 i32) (result i32) {configure})
        {}",
        plain()
    ))
}

/// The usual description after some stores into it.
fn told_with(stores: &str) -> Vec<u8> {
    told(&format!("{stores} (i32.const 1216)"), "(i32.const 1312)")
}

#[test]
fn a_description_that_loops_ends() {
    check(
        &told("(loop $forever (br $forever)) (unreachable)", "(i32.const 1312)"),
        "describe",
        "exhausted: meta.describe: used up its fuel",
    );
    check(&told("(unreachable)", "(i32.const 1312)"), "describe", "trap: meta.describe: wasm trap");
}

#[test]
fn a_description_must_be_fit_for_labels_and_people() {
    assert!(rig::host().admit(&told_with("")).is_ok(), "the cases below differ from a good one");
    check(
        &told_with("(i32.store8 (i32.const 1024) (i32.const 70))"),
        "describe",
        "meta.describe: name must be 1 to 64 lower-case letters, digits and hyphens, not \"Fixture\"",
    );
    check(&told_with("(i32.store (i32.const 1220) (i32.const 0))"), "describe", "name must be 1 to 64");
    check(&told_with("(i32.store (i32.const 1228) (i32.const 0))"), "describe", "version is empty");
    check(
        &told_with("(i32.store8 (i32.const 1060) (i32.const 10))"),
        "describe",
        "summary must be one line without control characters",
    );
    check(
        &told_with("(i32.store (i32.const 1096) (i32.const 1072))"),
        "describe",
        "the reason one stands twice",
    );
    check(&told_with("(i32.store (i32.const 1244) (i32.const 65))"), "describe", "meta.describe: ");
    check(
        &told_with("(i64.store (i32.const 1256) (i64.const 691200001))"),
        "describe",
        "patience is 691200001 ms; at most eight days (691200000) are allowed",
    );
    check(
        &told_with("(i32.store (i32.const 1216) (i32.const 0x7fffff00))"),
        "describe",
        "shape: meta.describe: ",
    );
}

#[test]
fn a_module_that_refuses_its_own_defaults_is_refused_with_its_words() {
    let refuses = "(i32.store8 (i32.const 1312) (i32.const 1)) (i32.store (i32.const 1316) (i32.const 1128))
        (i32.store (i32.const 1320) (i32.const 12)) (i32.const 1312)";
    check(&told("(i32.const 1216)", refuses), "configure", "fixture: at most 1000");
    check(
        &told("(i32.const 1216)", "(loop $forever (br $forever)) (unreachable)"),
        "configure",
        "fixture: exhausted: meta.configure: used up its fuel",
    );
}

/// The clock, not fuel, ends these loops: with fuel for years and a clock that runs fast.
#[test]
fn what_the_clock_ended_says_nothing_about_the_module() {
    let fuel = u64::MAX / 4;
    let wall = std::time::Duration::from_millis(20);
    let ceilings = Ceilings { fuel, start_fuel: fuel, describe_fuel: fuel, wall, ..Ceilings::default() };
    let host = Host::new(ceilings).unwrap();
    let forever = "(loop $forever (br $forever)) (unreachable)";
    let over = AtomicBool::new(false);
    let rejections = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                host.tick();
                std::thread::yield_now();
            }
        });
        let modules =
            [told(forever, "(i32.const 1312)"), told("(i32.const 1216)", forever), rig::fixture("loops")];
        let rejections = modules.map(|bytes| host.admit(&bytes).unwrap_err());
        over.store(true, Ordering::Relaxed);
        rejections
    });
    for rejection in rejections {
        assert_eq!(rejection.code, "timeout", "{rejection}");
        assert!(rejection.why.contains("was interrupted by the clock"), "{rejection}");
    }
}

#[test]
fn a_module_that_cannot_answer_the_questions_of_admission_is_refused_with_the_question() {
    check(
        &rig::fixture("loops"),
        "vectors",
        "fixture, question 1 of retry: exhausted: retry.next: used up its fuel",
    );
    let body = format!(
        "{SELECT}
        (i32.store (i32.const 2048) (i32.const 4096)) (i32.store (i32.const 2052) (i32.const 0)) (i32.const 2048))"
    );
    check(
        &rig::component(&body),
        "vectors",
        "fixture, question 2 of auto-scan: shape: auto-scan.select: expected 1 answers, found 0",
    );
    let body = format!("{RETRY} (i32.store16 (i32.const 2072) (i32.const 3)) (i32.const 2048))");
    check(
        &rig::component(&body),
        "vectors",
        "question 1 of retry: shape: retry.next: reason 3 is unknown; meta.describe names 2",
    );
}

#[test]
fn modules_that_sleep_or_stall_pass_admission_for_only_a_site_can_tell() {
    let host = rig::host();
    for name in ["sleeper", "idle", "fickle"] {
        rig::admitted(&host, name);
    }
}

/// Modules that no compiler should see: a few bytes of which cost it minutes or gigabytes.
#[test]
fn code_that_would_cost_the_compiler_too_much_is_refused_unread() {
    let function = |body: &str| format!("(func (param i32) (result i32) {body}) {}", plain());
    let reads: String = (1..=2000).map(|n| format!("local.get {n} i32.add ")).collect();
    let locals = format!("(local {})", "i32 ".repeat(2000));
    let joins = format!("{locals} {} i32.const 0 {reads}", "local.get 0 if end ".repeat(1000));
    check(&rig::component(&function(&joins)), "limits", "branches too much");
    let table = format!("{locals} block local.get 0 br_table {} end i32.const 0", "0 ".repeat(1000));
    check(&rig::component(&function(&table)), "limits", "branches too much");
    // Of what is not known to be small, the cost is looked at as in the head of a loop. This took a compiler 4 seconds.
    let held: String = (1..=700).map(|n| format!("global.get $top local.set {n} ")).collect();
    let read: String = (1..=700).map(|n| format!("local.get {n} i32.xor ")).collect();
    let grows = "memory.grow ".repeat(4900);
    let bomb = format!("(local {}) {held} local.get 0 {grows} {read}", "i32 ".repeat(700));
    check(&rig::component(&function(&bomb)), "limits", "branches too much");
    // The same with the values on the stack.
    let held: String = (1..=700).map(|n| format!("local.get 0 i32.load offset={} ", 4 * n)).collect();
    let bomb = format!("{held} local.get 0 {grows} {}", "i32.xor ".repeat(700));
    check(&rig::component(&function(&bomb)), "limits", "branches too much");
    let long = format!("local.get 0 {}", "local.get 0 i32.mul ".repeat(20_000));
    check(&rig::component(&function(&long)), "limits", "has a function of");
    let many = format!("{} {}", "(func) ".repeat(2001), plain());
    check(&rig::component(&many), "limits", "has more than 2000 functions");
    // Calls that move many values: 16 KiB of them took a minute and two gigabytes.
    let wide = "i32 ".repeat(33);
    let wide = format!("(func (param {wide}) (result {wide}) unreachable) {}", plain());
    check(&rig::component(&wide), "limits", "has a type of 66 parameters and results");
    // What costs much although nothing is alive across it.
    let heads = "loop end ".repeat(5000);
    check(&rig::component(&function(&format!("{heads} {heads} local.get 0"))), "limits", "has a function of");
    let heads = format!("(func {heads}) {}", function(&format!("{heads} local.get 0")));
    check(&rig::component(&heads), "limits", "is too much work to compile");
    let cuts = format!("local.get 0 {}", "f32.convert_i32_s i32.trunc_f32_s ".repeat(7900));
    check(&rig::component(&function(&cuts)), "limits", "is too much work to compile");
    let types: String =
        (0..1001).map(|n| format!("(type (func (param {}))) ", "i32 ".repeat(n % 61))).collect();
    check(&rig::component(&format!("{types} {}", plain())), "limits", "has more than 1000 types");
}

#[test]
fn components_with_code_inside_or_that_call_themselves_are_refused() {
    let inside = "(component (component (core module (func (export \"f\")))))";
    check(&wat::parse_str(inside).unwrap(), "limits", "a component inside it has code of its own");
    let itself = "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
        (func $lifted (canon lift (core func $i \"f\"))) (core func (canon lower (func $lifted))))";
    check(&wat::parse_str(itself).unwrap(), "limits", "lowers a function after it lifted one");
    let resource = "(component (type $r (resource (rep i32))) (core func (canon resource.drop $r)))";
    check(&wat::parse_str(resource).unwrap(), "limits", "a policy has functions only");
}

/// After everything that a good module has: another core module, and so many instances of it.
fn with_instances_of(module: &str, instances: u8) -> Vec<u8> {
    fn leb(mut n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while n > 127 {
            bytes.push(u8::try_from(n & 127).unwrap() | 128);
            n >>= 7;
        }
        bytes.push(u8::try_from(n).unwrap());
        bytes
    }
    let mut bytes = rig::fixture("suite");
    let module = wat::parse_str(module).unwrap();
    bytes.push(1);
    bytes.extend(leb(module.len()));
    bytes.extend(module);
    // Each of core module 1 without arguments.
    bytes.push(2);
    bytes.extend(leb(1 + 3 * usize::from(instances)));
    bytes.push(instances);
    bytes.extend([0, 1, 0].repeat(usize::from(instances)));
    bytes
}

#[test]
fn memories_of_all_instances_are_summed() {
    let with = |pages: u32| with_instances_of(&format!("(module (memory {pages}))"), 2);
    assert!(rig::host().admit(&with(7)).is_ok(), "1 + 7 + 7 pages are within 16");
    check(&with(8), "limits", "exhausted: instantiate");
}

/// What an instance costs without a call, and so without fuel: each decision would pay for it.
#[test]
fn what_an_instance_costs_without_fuel_is_bounded() {
    let many = |what: &str, n: usize| with_instances_of(&format!("(module {})", what.repeat(n)), 1);
    let global = "(global i32 (i32.const 0))";
    assert!(rig::host().admit(&many(global, 900)).is_ok());
    check(&many(global, 1001), "limits", "has more than 1000 globals");
    assert!(rig::host().admit(&many("(elem func)", 1000)).is_ok());
    check(&many("(elem func)", 1001), "limits", "has more than 1000 element segments");
    check(&many("(data \"\")", 1001), "limits", "has more than 1000 data segments");
    assert!(rig::host().admit(&with_instances_of("(module)", 15)).is_ok(), "16 with its own");
    check(&with_instances_of("(module)", 16), "limits", "has more than 16 core instances");
    // What is counted when an instance is made is the module's own doing as well, not the machine's.
    check(&many("(table 1 funcref)", 9), "limits", "table count too high");
    check(&with_instances_of("(module (memory 0))", 9), "limits", "memory count too high");
}

#[test]
fn instances_inside_of_components_inside_are_refused() {
    let inside = "(component (core module $m) (component (alias outer 1 0 (core module $n)) (core instance (instantiate $n))))";
    check(&wat::parse_str(inside).unwrap(), "limits", "a component inside it has code of its own");
}
