//! Decides whether the bank of planted bugs is compiled in: only the environment can ask for it, so that no feature of
//! another package can. Must not decide anything else.

fn main() {
    println!("cargo::rerun-if-env-changed=TIDEGATE_BUGS");
    println!("cargo::rustc-check-cfg=cfg(tidegate_bugs)");
    if std::env::var_os("TIDEGATE_BUGS").is_some_and(|value| value == "1") {
        println!("cargo::rustc-cfg=tidegate_bugs");
    }
}
