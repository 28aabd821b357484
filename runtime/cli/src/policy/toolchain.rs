//! Finds what compiles a policy and runs it: cargo and rustc with a wasm32 target (or Debian's rustc with the library's
//! source, of which the target's libraries are built once), clang, or zig. Makes no component and judges none.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::desk;
use crate::{Failure, say};

/// The target of every policy: no system interface, nothing to import but the contract.
const TARGET: &str = "wasm32-unknown-unknown";
/// Bytes of a policy's stack. The default of a mebibyte alone would be all the memory that a site gives it, and a stack
/// that ends in memory is told apart from one that runs into it.
const STACK: &str = "-zstack-size=16384";

/// What compiles Rust.
struct Rust {
    cargo: PathBuf,
    rustc: PathBuf,
    /// For people.
    version: String,
    /// Libraries of the target, if they are not the compiler's own.
    sysroot: Option<PathBuf>,
    /// A linker, if the compiler has none of its own.
    linker: Option<PathBuf>,
}

/// Compiles the cargo project in `dir`; the answer is the core module's file.
pub(crate) fn compile_rust(dir: &Path) -> Result<PathBuf, Failure> {
    let rust = find_rust()?;
    say(&format!("compiling with {} ({})", rust.version, rust.rustc.display()));
    let target_dir = dir.join("target");
    let mut cargo = Command::new(&rust.cargo);
    cargo.args(["build", "--release", "--target", TARGET, "--manifest-path"]).arg(dir.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target_dir);
    cargo.env("RUSTC", &rust.rustc);
    // Flags for other programs would change the bytes of this one, or hide those below.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let mut flags = vec![format!("-Clink-arg={STACK}")];
    if let Some(sysroot) = &rust.sysroot {
        flags.push(format!("--sysroot={}", sysroot.display()));
    }
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags.join(" "));
    if let Some(linker) = &rust.linker {
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    run(&mut cargo, "cargo")?;
    let built = desk::files(&target_dir.join(TARGET).join("release"), "wasm");
    match built.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::failed(
            "cargo made no .wasm: Cargo.toml needs crate-type = [\"cdylib\"] under [lib]".to_owned(),
        )),
        many => Err(Failure::failed(format!(
            "{} .wasm files lie in {}: remove that directory and build again",
            many.len(),
            target_dir.join(TARGET).join("release").display()
        ))),
    }
}

fn find_rust() -> Result<Rust, Failure> {
    let Some(cargo) = std::env::var_os("CARGO")
        .map(PathBuf::from)
        .filter(|file| desk::is_program(file))
        .or_else(|| desk::program("cargo"))
    else {
        return Err(missing_rust("there is no cargo"));
    };
    let mut compilers: Vec<PathBuf> = Vec::new();
    let named = std::env::var_os("RUSTC").map(PathBuf::from);
    let known =
        [named, desk::program("rustc"), Some(PathBuf::from("/usr/bin/rustc")), desk::program("rustc-web")];
    for rustc in known.into_iter().flatten().filter(|file| desk::is_program(file)) {
        if !compilers.contains(&rustc) {
            compilers.push(rustc);
        }
    }
    let mut without_linker = false;
    for rustc in &compilers {
        let Some((version, release)) = version_of(rustc) else { continue };
        let Some(own) = output(Command::new(rustc).args(["--print", "sysroot"])) else { continue };
        let own = PathBuf::from(own.trim());
        let linker = own_linker(&own).is_none().then(wasm_ld);
        if let Some(None) = linker {
            without_linker = true;
            continue;
        }
        let linker = linker.flatten();
        if has_target(&own) {
            return Ok(Rust { cargo, rustc: rustc.clone(), version, sysroot: None, linker });
        }
        let library = PathBuf::from(format!("/usr/src/rustc-{release}/library"));
        if desk::is_file(&library.join("core/src/lib.rs")) {
            let sysroot = own_sysroot(rustc, &release, &library)?;
            return Ok(Rust { cargo, rustc: rustc.clone(), version, sysroot: Some(sysroot), linker });
        }
    }
    Err(missing_rust(match (compilers.is_empty(), without_linker) {
        (true, _) => "there is no rustc",
        (false, true) => "there is no linker for it",
        (false, false) => "no rustc here has the target, nor its library's source",
    }))
}

fn missing_rust(what: &str) -> Failure {
    Failure::failed(format!(
        "nothing here compiles Rust to WebAssembly: {what}. Install one of\n  \
         rustup target add {TARGET}                    (with rustup)\n  \
         apt-get install cargo rustc-web rust-web-src lld    (on Debian)"
    ))
}

/// The compiler's own linker for the target, as rustup's toolchains have one.
fn own_linker(sysroot: &Path) -> Option<PathBuf> {
    desk::directories(&sysroot.join("lib/rustlib"))
        .into_iter()
        .map(|host| host.join("bin/rust-lld"))
        .find(|file| desk::is_program(file))
}

/// LLVM's linker for WebAssembly. The compiler knows its ways by the name `wasm-ld`, so one with a version in its name
/// is taken from its own directory.
fn wasm_ld() -> Option<PathBuf> {
    desk::program("wasm-ld").or_else(|| {
        let mut all: Vec<PathBuf> = desk::directories(Path::new("/usr/lib"))
            .into_iter()
            .filter(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("llvm-")))
            .map(|dir| dir.join("bin/wasm-ld"))
            .filter(|file| desk::is_program(file))
            .collect();
        all.sort_by_key(|file| number_in(file));
        all.pop()
    })
}

/// The number in a path such as `/usr/lib/llvm-19/bin/wasm-ld`.
fn number_in(path: &Path) -> u32 {
    let digits: String = path.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// What a compiler calls itself, and its release.
fn version_of(rustc: &Path) -> Option<(String, String)> {
    let text = output(Command::new(rustc).arg("-vV"))?;
    let version = text.lines().next()?.split(" (").next()?.to_owned();
    let release = text.lines().find_map(|line| line.strip_prefix("release: "))?.to_owned();
    Some((version, release))
}

fn has_target(sysroot: &Path) -> bool {
    let lib = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    desk::files(&lib, "rlib")
        .iter()
        .any(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libcore")))
}

/// The target's libraries, built once of the source that comes with the compiler and kept in the user's cache.
fn own_sysroot(rustc: &Path, release: &str, library: &Path) -> Result<PathBuf, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .ok_or_else(|| Failure::failed("neither XDG_CACHE_HOME nor HOME is set: where to keep libraries?"))?;
    let done = cache.join("tidegate").join(format!("wasm32-rust-{release}"));
    if has_target(&done) {
        return Ok(done);
    }
    say(&format!(
        "building core and alloc of {release} for {TARGET}, once, into {} (about a minute)",
        done.display()
    ));
    // Built beside its place and moved there whole: one that was interrupted, or another at the same time, does no harm.
    let building = cache.join("tidegate").join(format!("building-{}", std::process::id()));
    let lib = building.join("lib/rustlib").join(TARGET).join("lib");
    desk::make(&lib)?;
    let library_of = |name: &str| lib.join(format!("lib{name}.rlib"));
    let core = format!("core={}", library_of("core").display());
    let builtins = format!("compiler_builtins={}", library_of("compiler_builtins").display());
    let features = ["compiler-builtins", "mem", "mem-unaligned", "unmangled-names", "arch"];
    let features: Vec<String> = features.iter().map(|name| format!("feature=\"{name}\"")).collect();
    let builtins_source = library.join("compiler-builtins/compiler-builtins/src/lib.rs");
    let alloc_source = library.join("alloc/src/lib.rs");
    let crates = [
        ("core", library.join("core/src/lib.rs"), vec![], &[][..]),
        ("compiler_builtins", builtins_source, vec![&core], &features[..]),
        ("alloc", alloc_source, vec![&core, &builtins], &[][..]),
    ];
    for (name, source, externs, features) in crates {
        let mut command = Command::new(rustc);
        command.args(["--crate-name", name, "--target", TARGET, "--crate-type", "rlib", "--edition", "2024"]);
        command.args(["-Copt-level=s", "-Cpanic=abort", "-Ccodegen-units=1", "-Cembed-bitcode=yes"]);
        command.args(["-Zforce-unstable-if-unmarked", "--cap-lints", "allow", "--out-dir"]).arg(&lib);
        for path in externs {
            command.args(["--extern", path]);
        }
        for feature in features {
            command.args(["--cfg", feature]);
        }
        // The library is written for its own compiler and needs the features that others may not use.
        command.arg(&source).env("RUSTC_BOOTSTRAP", "1");
        let built = run(&mut command, "rustc");
        if built.is_err() {
            desk::remove(&building)?;
            return built.map(|()| done);
        }
    }
    match desk::rename(&building, &done) {
        Ok(()) => Ok(done),
        // Another build was faster.
        Err(_) if has_target(&done) => desk::remove(&building).map(|()| done),
        Err(failure) => Err(failure),
    }
}

/// What compiles C.
enum Clang {
    /// clang and its linker.
    Llvm { clang: PathBuf, linker: PathBuf },
    /// zig's own clang, with a linker inside.
    Zig { program: PathBuf, arguments: Vec<&'static str> },
}

/// Compiles the C files of a project into `out`, a core module.
pub(crate) fn compile_c(dir: &Path, out: &Path) -> Result<(), Failure> {
    let mut sources = desk::files(dir, "c");
    let mut objects = desk::files(dir, "o");
    let mut includes = vec![dir.to_path_buf()];
    for part in desk::directories(dir) {
        let (c, o) = (desk::files(&part, "c"), desk::files(&part, "o"));
        if !c.is_empty() || !desk::files(&part, "h").is_empty() {
            includes.push(part);
        }
        sources.extend(c);
        objects.extend(o);
    }
    let clang = find_clang()?;
    let mut command = match &clang {
        Clang::Llvm { clang, .. } => {
            let mut command = Command::new(clang);
            command.arg(format!("--target={TARGET}"));
            command
        }
        Clang::Zig { program, arguments } => {
            let mut command = Command::new(program);
            command.args(arguments).args(["cc", "-target", "wasm32-freestanding"]);
            command
        }
    };
    say(&format!("compiling with {}", command.get_program().to_string_lossy()));
    command.args(["-mbulk-memory", "-Os", "-flto", "-nostdlib", "-ffreestanding", "-Wall"]);
    for include in &includes {
        command.arg("-isystem").arg(include);
    }
    if let Clang::Llvm { linker, .. } = &clang {
        command.arg(format!("-fuse-ld={}", linker.display()));
    }
    command.args(["-Wl,--no-entry", "-Wl,--strip-all", &format!("-Wl,{STACK}")]);
    command.args(&sources).args(&objects).arg("-o").arg(out);
    run(&mut command, "the C compiler")
}

fn find_clang() -> Result<Clang, Failure> {
    let named = std::env::var_os("CC").map(PathBuf::from).filter(|file| desk::is_program(file));
    let mut compilers: Vec<PathBuf> = named.into_iter().chain(desk::program("clang")).collect();
    // Debian's compilers have their version in their names; newer ones first.
    compilers.extend((11..=29).rev().filter_map(|version| desk::program(&format!("clang-{version}"))));
    let makes_wasm = |clang: &PathBuf| {
        output(Command::new(clang).arg("--print-targets")).is_some_and(|targets| targets.contains("wasm32"))
    };
    let clang = compilers.into_iter().find(makes_wasm);
    if let (Some(clang), Some(linker)) = (&clang, wasm_ld()) {
        return Ok(Clang::Llvm { clang: clang.clone(), linker });
    }
    if let Some(program) = desk::program("zig") {
        return Ok(Clang::Zig { program, arguments: Vec::new() });
    }
    if let Some(program) = desk::program("python3")
        && output(Command::new(&program).args(["-m", "ziglang", "version"])).is_some()
    {
        return Ok(Clang::Zig { program, arguments: vec!["-m", "ziglang"] });
    }
    let what =
        if clang.is_some() { "there is a clang, but no wasm-ld" } else { "there is no clang that can" };
    Err(Failure::failed(format!(
        "nothing here compiles C to WebAssembly: {what}. Install one of\n  apt-get install clang lld    (on Debian)\n  \
         pip install ziglang          (anywhere)"
    )))
}

/// What a program prints, if it ends well.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end; what it prints goes where ours goes.
fn run(command: &mut Command, name: &str) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| {
        Failure::failed(format!("cannot run {}: {error}", command.get_program().to_string_lossy()))
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::failed(format!("{name} failed; what it said stands above"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_several_linkers_is_told_by_its_number() {
        assert_eq!(number_in(Path::new("/usr/lib/llvm-19/bin/wasm-ld")), 19);
        assert_eq!(number_in(Path::new("/usr/lib/llvm/bin/wasm-ld")), 0);
    }
}
