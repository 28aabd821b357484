//! `tidegate policy build`: compiles a project, makes a component of what comes of it, and checks that.

use std::path::Path;

use tidegate_policies::author;

use super::args::{Build, Check, SettingsArg};
use super::local::MODULE_FILE;
use super::{check, desk, toolchain};
use crate::{Done, Failure, say};

pub(super) fn build(args: &Build) -> Done {
    let core = core(&args.dir)?;
    let component = author::component(&core).map_err(|error| {
        Failure::failed(format!("what the compiler made cannot become a component: {error}"))
    })?;
    let dir = if desk::is_file(&args.dir) { args.dir.parent().unwrap_or(Path::new("")) } else { &args.dir };
    let module = dir.join(MODULE_FILE);
    desk::write(&module, &component)?;
    say(&format!("wrote {}", module.display()));
    say("");
    let vectors = desk::files(&dir.join("vectors"), "jsonl");
    check::check(&Check { module, settings: SettingsArg { given: Vec::new() }, vectors, json: false })
}

/// The core module of the project in `dir`, or of the file of this name.
fn core(dir: &Path) -> Result<Vec<u8>, Failure> {
    if desk::is_file(dir) {
        return desk::read(dir);
    }
    if !dir.is_dir() {
        return Err(Failure::failed(format!(
            "there is no directory {}: make one with `tidegate policy new {0}`",
            dir.display()
        )));
    }
    if desk::is_file(&dir.join("Cargo.toml")) {
        return desk::read(&toolchain::compile_rust(dir)?);
    }
    if desk::files(dir, "c").is_empty() {
        return Err(Failure::failed(format!(
            "{} is no project of a policy: it has neither Cargo.toml nor a .c file. Make one with `tidegate policy new \
             DIR`",
            dir.display()
        )));
    }
    let out = dir.join("core.wasm");
    toolchain::compile_c(dir, &out)?;
    let core = desk::read(&out)?;
    desk::remove_file(&out)?;
    Ok(core)
}
