//! `tidegate policy build`: compiles a project with what is installed, makes a component of it, and checks that. How a
//! policy is compiled is the policies' library's.

use std::path::{Path, PathBuf};

use tidegate_policies::author::recipe::{self, BuildError, C, Rust};
use tidegate_policies::author::{self};

use super::args::{Build, Check, SettingsArg};
use super::local::MODULE_FILE;
use super::{check, desk};
use crate::{Done, Failure, say};

pub(super) fn build(args: &Build) -> Done {
    let component = component(&args.dir)?;
    let dir = if desk::is_file(&args.dir) { args.dir.parent().unwrap_or(Path::new("")) } else { &args.dir };
    let module = dir.join(MODULE_FILE);
    desk::write(&module, &component)?;
    say(&format!("wrote {}", module.display()));
    say("");
    let vectors = desk::files(&dir.join("vectors"), "jsonl");
    check::check(&Check { module, settings: SettingsArg { given: Vec::new() }, vectors, json: false })
}

/// The component of the project in `dir`, or of the core module of this name.
fn component(dir: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: BuildError| match error {
        BuildError::Missing(what) => Failure::failed(format!("nothing here compiles this policy: {what}")),
        other => Failure::failed(format!("{} is not built: {other}", dir.display())),
    };
    if desk::is_file(dir) {
        let core = desk::read(dir)?;
        return author::component(&core).map_err(|error| failed(BuildError::Author(error)));
    }
    if !desk::is_directory(dir) {
        return Err(Failure::failed(format!(
            "there is no directory {}: make one with `tidegate policy new {0}`",
            dir.display()
        )));
    }
    let target = dir.join("target");
    if desk::is_file(&dir.join("Cargo.toml")) {
        let rust = Rust::find().map_err(failed)?;
        say(&format!("compiling with {}", rust.describe()));
        let sysroots = cache().unwrap_or_else(|| target.join("sysroot"));
        return recipe::build_rust_with(dir, &rust, &target, &sysroots)
            .map(|built| built.component)
            .map_err(failed);
    }
    if !desk::files(dir, "c").is_empty() {
        let c = C::find().map_err(failed)?;
        say(&format!("compiling with {}", c.version));
        return recipe::build_c(dir, &c, &target).map(|built| built.component).map_err(failed);
    }
    Err(Failure::failed(format!(
        "{} is no project of a policy: it has neither Cargo.toml nor a .c file. Make one with `tidegate policy new DIR`",
        dir.display()
    )))
}

/// Where libraries are kept that a compiler lacks and that take a minute to build: once for all projects.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("tidegate"))
}
