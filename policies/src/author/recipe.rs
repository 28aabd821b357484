//! How a policy is built from its source: which compilers do, with which flags, and the steps. Runs on an author's desk,
//! never on a site; decides nothing about the policy that comes out.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{AuthorError, component};

/// The target of every policy.
const TARGET: &str = "wasm32-unknown-unknown";
/// Stack of a module: a quarter of a page, below its data, so that an overflow is a trap and not a corruption.
const STACK: &str = "-zstack-size=16384";

/// The compiler that the committed modules were built with, by its own name: others give other bytes. Debian's packages
/// rustc-web and rust-web-src.
pub const PINNED_RUSTC: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)";

/// What to install when nothing is there to build a policy in Rust.
pub const RUST_MISSING: &str = "no Rust compiler for WebAssembly: run `rustup target add wasm32-unknown-unknown`, or install \
                                Debian's rustc-web, rust-web-src and lld-19";

/// What to install when nothing is there to build a policy in C.
pub const C_MISSING: &str =
    "no C compiler for WebAssembly: install clang-19 and lld-19 (or another version of both)";

/// Why a policy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No compiler that can.
    #[error("{0}")]
    Missing(&'static str),
    /// A compiler could not be started.
    #[error("cannot run {program}: {source}")]
    Run {
        /// What was to be run.
        program: String,
        /// Why it did not.
        source: io::Error,
    },
    /// A compiler said no; what it said stands above this on the terminal.
    #[error("{program} failed ({status})")]
    Failed {
        /// What was run.
        program: String,
        /// How it ended.
        status: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The folder is not what the build expects.
    #[error("{0}")]
    Project(String),
    /// What was compiled is no policy.
    #[error(transparent)]
    Author(#[from] AuthorError),
}

/// A policy as built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The component: what a site loads.
    pub component: Vec<u8>,
    /// The compiler, by its own name.
    pub compiler: String,
}

/// A Rust compiler that can build policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rust {
    rustc: PathBuf,
    /// Its own name and version, as `rustc --version` tells them.
    pub version: String,
    /// The source of its libraries, if they must be built first; `None` if it has them for the target.
    source: Option<PathBuf>,
    linker: Option<PathBuf>,
}

impl Rust {
    /// The first compiler that can: the `rustc` of the path, if it has the target; else a `rustc` with the source of its
    /// libraries and a linker beside it.
    ///
    /// # Errors
    /// [`BuildError::Missing`] with what to install.
    pub fn find() -> Result<Rust, BuildError> {
        let mut found = Rust::all();
        // One that has the libraries already is quicker.
        found.sort_by_key(|rust| rust.source.is_some());
        found.into_iter().next().ok_or(BuildError::Missing(RUST_MISSING))
    }

    /// The compiler that the committed modules were built with, if it is here.
    #[must_use]
    pub fn pinned() -> Option<Rust> {
        Rust::all().into_iter().find(|rust| rust.is_pinned())
    }

    /// Whether it is the one that the committed modules were built with.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.version == PINNED_RUSTC
    }

    /// For people: the compiler, and where its libraries come from.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.source {
            None => format!("{} with its own {TARGET} libraries", self.version),
            Some(source) => format!("{} with libraries built from {}", self.version, source.display()),
        }
    }

    fn all() -> Vec<Rust> {
        ["rustc", "/usr/bin/rustc"].into_iter().filter_map(|rustc| Rust::at(Path::new(rustc))).collect()
    }

    fn at(rustc: &Path) -> Option<Rust> {
        let version = says(rustc, &["--version"])?;
        let libraries = says(rustc, &["--print", "target-libdir", "--target", TARGET])?;
        let linker = linker(rustc);
        let has_target = fs::read_dir(libraries)
            .is_ok_and(|files| files.flatten().any(|file| name_of(&file.path()).starts_with("libcore-")));
        if has_target {
            return Some(Rust { rustc: rustc.into(), version, source: None, linker });
        }
        // Debian keeps the source by version; rustup in the compiler's own folder, as its component rust-src.
        let number = version.split(' ').nth(1)?.to_owned();
        let own = says(rustc, &["--print", "sysroot"])?;
        let source = [
            PathBuf::from(format!("/usr/src/rustc-{number}/library")),
            Path::new(&own).join("lib/rustlib/src/rust/library"),
        ]
        .into_iter()
        .find(|source| source.join("core/src/lib.rs").is_file() && fits(source, &number))?;
        Some(Rust { rustc: rustc.into(), version, source: Some(source), linker: Some(linker?) })
    }

    /// A word for folders that only this compiler may use.
    fn slug(&self) -> String {
        self.version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }
}

/// Whether a source is the compiler's own: the libraries of one version need the compiler of that version.
fn fits(source: &Path, number: &str) -> bool {
    match fs::read_to_string(source.join("../version")) {
        Ok(version) => version.starts_with(number),
        Err(_) => true,
    }
}

/// Builds core and alloc for the target into a folder, unless this compiler did so there before. Takes half a minute.
/// The folder is a sysroot; `None` if the compiler has the libraries itself.
///
/// # Errors
/// If the compiler cannot be run or fails, or files cannot be written.
pub fn sysroot(rust: &Rust, folder: &Path) -> Result<Option<PathBuf>, BuildError> {
    let Some(source) = &rust.source else { return Ok(None) };
    let root = absolute(&folder.join(rust.slug()))?;
    let done = root.join("done");
    if done.is_file() {
        return Ok(Some(root));
    }
    let out = root.join("lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&out).map_err(|source| file(&out, source))?;
    let library = |name: &str| format!("{name}={}", out.join(format!("lib{name}.rlib")).display());
    let builtins_features = ["compiler-builtins", "mem", "mem-unaligned", "unmangled-names", "arch"];
    let mut builtins: Vec<String> = Vec::from([String::from("--extern"), library("core")]);
    for feature in builtins_features {
        builtins.extend([String::from("--cfg"), format!("feature=\"{feature}\"")]);
    }
    let alloc: Vec<String> = ["core", "compiler_builtins"]
        .iter()
        .flat_map(|name| [String::from("--extern"), library(name)])
        .collect();
    let steps = [
        ("core", "core/src/lib.rs", Vec::new()),
        ("compiler_builtins", "compiler-builtins/compiler-builtins/src/lib.rs", builtins),
        ("alloc", "alloc/src/lib.rs", alloc),
    ];
    for (name, path, externs) in steps {
        let mut command = Command::new(&rust.rustc);
        // The libraries of a release use what only nightly compilers allow elsewhere.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.args(["--crate-name", name, "--target", TARGET, "--crate-type", "rlib", "--edition", "2024"]);
        command.args(["-Copt-level=s", "-Cpanic=abort", "-Ccodegen-units=1", "-Cembed-bitcode=yes"]);
        command.args(["-Zforce-unstable-if-unmarked", "--cap-lints", "allow"]);
        command.arg(format!("--remap-path-prefix={}=/rustc/library", source.display()));
        command.args(externs).arg("--out-dir").arg(&out).arg(source.join(path));
        run(&mut command)?;
    }
    fs::write(&done, &rust.version).map_err(|source| file(&done, source))?;
    Ok(Some(root))
}

/// Builds a policy in Rust: the crate of a folder, a `cdylib`. `target` is for what can be made again: libraries and
/// cargo's own files.
///
/// # Errors
/// If cargo cannot be run or fails, or what it made is no policy.
pub fn build_rust(folder: &Path, rust: &Rust, target: &Path) -> Result<Built, BuildError> {
    let folder = absolute(folder)?;
    if !folder.join("Cargo.toml").is_file() {
        return Err(BuildError::Project(format!("{} has no Cargo.toml", folder.display())));
    }
    fs::create_dir_all(target).map_err(|source| file(target, source))?;
    let target = absolute(target)?;
    let mut flags: Vec<String> = Vec::new();
    if let Some(root) = sysroot(rust, &target.join("sysroot"))? {
        flags.extend([String::from("--sysroot"), root.display().to_string()]);
    }
    let mut path = None;
    if let Some(linker) = &rust.linker {
        if name_of(linker) == "rust-lld" {
            // Found by its name alone, in the path: the compiler knows how to speak to it.
            let rest = std::env::var_os("PATH").unwrap_or_default();
            let first = linker.parent().map(Path::to_path_buf);
            path = std::env::join_paths(first.into_iter().chain(std::env::split_paths(&rest))).ok();
        } else {
            flags.push(format!("-Clinker={}", linker.display()));
            flags.push(String::from("-Clinker-flavor=wasm-ld"));
        }
    }
    flags.push(format!("-Clink-arg={STACK}"));
    // Places in the source stand in panics: they must not tell, nor depend on, where a folder lies. Later ones win.
    let mut up = String::from("../..");
    let above: Vec<&Path> = folder.ancestors().take(3).collect();
    for place in above.iter().rev() {
        flags.push(format!("--remap-path-prefix={}={}", place.display(), up));
        up = if up == "../.." { String::from("..") } else { String::from(".") };
    }

    let mut command = Command::new("cargo");
    command.current_dir(&folder).env("RUSTC", &rust.rustc).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for variable in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(variable);
    }
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    // Of its own for each compiler and folder: cargo does not notice when a sysroot is another.
    command.arg("--target-dir").arg(target.join(rust.slug()).join(name_of(&folder)));
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output =
        command.output().map_err(|source| BuildError::Run { program: String::from("cargo"), source })?;
    if !output.status.success() {
        return Err(BuildError::Failed { program: String::from("cargo"), status: output.status.to_string() });
    }
    let made = String::from_utf8_lossy(&output.stdout).lines().filter_map(module_of).next_back();
    let Some(made) = made else {
        let what = "the crate made no module: its Cargo.toml needs [lib] crate-type = [\"cdylib\"]";
        return Err(BuildError::Project(String::from(what)));
    };
    let core = fs::read(&made).map_err(|source| file(&made, source))?;
    Ok(Built { component: component(&core)?, compiler: rust.version.clone() })
}

/// The module that a message of cargo tells of.
fn module_of(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let files = message.get("filenames")?.as_array()?;
    files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

/// A C compiler that can build policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct C {
    clang: String,
    linker: PathBuf,
    /// Its own name and version.
    pub version: String,
}

impl C {
    /// The first clang with the target and a linker for it.
    ///
    /// # Errors
    /// [`BuildError::Missing`] with what to install.
    pub fn find() -> Result<C, BuildError> {
        let mut names = vec![String::from("clang-19"), String::from("clang")];
        names.extend((14..=30).rev().map(|n| format!("clang-{n}")));
        for clang in names {
            let Some(version) = says(Path::new(&clang), &["--version"]) else { continue };
            let targets = says_all(Path::new(&clang), &["--print-targets"]).unwrap_or_default();
            if let (true, Some(linker)) = (targets.contains("wasm32"), lld()) {
                let version = version.lines().next().unwrap_or_default().to_owned();
                return Ok(C { clang, linker, version });
            }
        }
        Err(BuildError::Missing(C_MISSING))
    }
}

/// Builds a policy in C: every `.c` file of a folder and of its folders `gen` and `shim`.
///
/// # Errors
/// If clang cannot be run or fails, or what it made is no policy.
pub fn build_c(folder: &Path, c: &C, target: &Path) -> Result<Built, BuildError> {
    let folder = absolute(folder)?;
    let out = target.join("c").join(name_of(&folder));
    fs::create_dir_all(&out).map_err(|source| file(&out, source))?;
    let out = absolute(&out)?.join("core.wasm");
    let mut sources = Vec::new();
    for place in ["", "gen", "shim"] {
        if let Ok(files) = fs::read_dir(folder.join(place)) {
            let names = files.flatten().map(|file| name_of(&file.path()));
            sources.extend(names.filter(|name| name.ends_with(".c")).map(|name| Path::new(place).join(name)));
        }
    }
    // The order of the files is the order in the module.
    sources.sort();
    if sources.is_empty() {
        return Err(BuildError::Project(format!("{} has no file in C", folder.display())));
    }
    let mut command = Command::new(&c.clang);
    command.current_dir(&folder);
    command.args([&format!("--target={TARGET}"), "-std=c11", "-Os", "-flto", "-Wall", "-Wextra"]);
    command.args(["-mbulk-memory", "-nostdlib", "-ffreestanding", "-isystem", "shim", "-I", "gen"]);
    command.arg(format!("-fuse-ld={}", c.linker.display()));
    command.args(["-Wl,--no-entry", "-Wl,--strip-all", &format!("-Wl,{STACK}")]);
    command.args(&sources).arg("-o").arg(&out);
    run(&mut command)?;
    let core = fs::read(&out).map_err(|source| file(&out, source))?;
    Ok(Built { component: component(&core)?, compiler: c.version.clone() })
}

/// A linker for WebAssembly: beside a compiler, or in the path.
fn linker(rustc: &Path) -> Option<PathBuf> {
    lld().or_else(|| {
        let mut roots = vec![rustc.to_path_buf()];
        roots.push(PathBuf::from("rustc"));
        roots.into_iter().find_map(|rustc| {
            let root = says(&rustc, &["--print", "sysroot"])?;
            let host = says_all(&rustc, &["-vV"])?;
            let host = host.lines().find_map(|line| line.strip_prefix("host: "))?.to_owned();
            let lld = Path::new(&root).join("lib/rustlib").join(host).join("bin/rust-lld");
            lld.is_file().then_some(lld)
        })
    })
}

fn lld() -> Option<PathBuf> {
    let mut names = vec![String::from("wasm-ld-19"), String::from("wasm-ld")];
    names.extend((14..=30).rev().map(|n| format!("wasm-ld-{n}")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// The first line that a program prints, if it runs.
fn says(program: &Path, arguments: &[&str]) -> Option<String> {
    says_all(program, arguments).and_then(|said| said.lines().next().map(|line| line.trim().to_owned()))
}

fn says_all(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(command: &mut Command) -> Result<(), BuildError> {
    let program = Path::new(command.get_program()).display().to_string();
    let status = command.status().map_err(|source| BuildError::Run { program: program.clone(), source })?;
    if status.success() { Ok(()) } else { Err(BuildError::Failed { program, status: status.to_string() }) }
}

fn absolute(path: &Path) -> Result<PathBuf, BuildError> {
    std::path::absolute(path)
        .map_err(|source| file(path, source))
        .map(|path| fs::canonicalize(&path).unwrap_or(path))
}

fn file(path: &Path, source: io::Error) -> BuildError {
    BuildError::File { path: path.display().to_string(), source }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}
