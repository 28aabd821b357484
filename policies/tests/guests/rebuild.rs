//! Builds the committed modules again from their sources. Without arguments it compares: bytes with the pinned compiler,
//! and says aloud what it could not compare. With `--write` it writes modules and policy.toml, only with the pinned
//! compiler.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers: it prints what it found"
)]

#[allow(dead_code, reason = "shared with the tests, which need more of it")]
mod book;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use book::Guest;
use tidegate_policies::author::recipe::{self, Built};
use tidegate_policies::{Ceilings, Host};

/// The C compiler of the committed module, by the beginning of its name: Debian's patches do not change what it makes.
const PINNED_CLANG: &str = "Debian clang version 19.";

fn main() -> ExitCode {
    let write = std::env::args().any(|argument| argument == "--write");
    let out = std::env::args().skip_while(|argument| argument != "--out").nth(1).map(PathBuf::from);
    let host = Host::new(Ceilings::default()).expect("the host starts on any machine that builds it");
    let target = book::policies().join("../target/policies");
    let (rust, c) = (recipe::Rust::pinned().map_or_else(recipe::Rust::find, Ok), recipe::C::find());
    let (mut failed, mut skipped) = (0, 0);
    for guest in Guest::all() {
        let built = if guest.in_c {
            c.as_ref()
                .map(|c| (recipe::build_c(&guest.folder, c, &target), c.version.starts_with(PINNED_CLANG)))
        } else {
            rust.as_ref().map(|rust| (recipe::build_rust(&guest.folder, rust, &target), rust.is_pinned()))
        };
        let (built, pinned) = match built {
            Ok((Ok(built), pinned)) => (built, pinned),
            Ok((Err(error), _)) => {
                println!("FAILED   {}: {error}", guest.place);
                failed += 1;
                continue;
            }
            Err(missing) => {
                println!("SKIPPED  {}: not built again: {missing}", guest.place);
                skipped += 1;
                continue;
            }
        };
        if let Some(out) = &out {
            fs::create_dir_all(out).expect("a folder for what was built");
            let name = guest.place.replace('/', "-");
            fs::write(out.join(format!("{name}.wasm")), &built.component).expect("a file in that folder");
        }
        let same = fs::read(guest.folder.join("policy.wasm")).is_ok_and(|wasm| wasm == built.component);
        match (pinned, write, same) {
            (true, true, _) => {
                commit(&guest, &built, &host);
                println!("WROTE    {}: {} bytes", guest.place, built.component.len());
            }
            (true, false, true) => println!("EQUAL    {}: the same bytes by {}", guest.place, built.compiler),
            (true, false, false) => {
                println!("FAILED   {}: its sources give other bytes: {}", guest.place, book::REBUILD);
                failed += 1;
            }
            (false, _, _) => {
                let pinned = guest.card().map_or_else(|why| why, |card| card.compiler);
                println!("UNEQUAL? {}: bytes not compared: {}, pinned {pinned}", guest.place, built.compiler);
                skipped += 1;
                if let Err(why) = host.admit(&built.component) {
                    println!("FAILED   {}: what {} made is refused: {why}", guest.place, built.compiler);
                    failed += 1;
                }
            }
        }
    }
    if skipped > 0 {
        println!("SKIPPED ALOUD: {skipped} modules were not compared with what their sources give");
        if std::env::var_os("TIDEGATE_TEST_NO_SKIP").is_some() {
            println!("and nothing may be skipped here (TIDEGATE_TEST_NO_SKIP)");
            failed += skipped;
        }
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Writes a module and its card.
fn commit(guest: &Guest, built: &Built, host: &Host) {
    let module = host.admit(&built.component).unwrap_or_else(|why| panic!("{}: {why}", guest.place));
    let hooks: Vec<String> = module.facts().slots.iter().map(|slot| format!("\"{}\"", slot.name())).collect();
    let card = format!(
        "# Written by `{}`.\nname = \"{}\"\nhooks = [{}]\nsha256 = \"{}\"\n# Over its sources, the SDK and the contract.\n\
         sources = \"{}\"\ncompiler = \"{}\"\n",
        book::REBUILD,
        module.facts().name,
        hooks.join(", "),
        book::hash(&built.component),
        guest.sources_hash(),
        built.compiler,
    );
    fs::write(guest.folder.join("policy.wasm"), &built.component).expect("the module is written");
    fs::write(guest.folder.join("policy.toml"), card).expect("its card is written");
}
