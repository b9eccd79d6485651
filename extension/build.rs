//! The loadable library stays in the process once it was loaded, also after the last connection that used it was closed: a
//! pool that opens and closes connections would else pay each time for mapping, relocating and initialising it (and
//! libgcc, which asks the processor what it is: slow in a virtual machine).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
