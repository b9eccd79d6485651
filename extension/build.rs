//! How the loadable library is linked, so that loading it costs little.
//!
//! It stays in the process once it was loaded, also after the last connection that used it was closed: a pool that opens and
//! closes connections would else pay each time for mapping, relocating and initialising it.
//!
//! What unwinds a panic's stack comes along (`libgcc_eh`): most programs that load us, the sqlite3 shell and Python among them,
//! have no `libgcc_s.so`, and looking for it, mapping it and its questions to the processor (slow in a virtual machine) took
//! longer than all the rest of loading.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let native = std::env::var("HOST").ok() == std::env::var("TARGET").ok();
    if !native || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    // Without it the library asks for libgcc_s.so, as any other.
    if let Some(unwinder) = of_the_compiler("libgcc_eh.a") {
        for arg in ["-Wl,--whole-archive", &unwinder, "-Wl,--no-whole-archive"] {
            println!("cargo:rustc-cdylib-link-arg={arg}");
        }
    }
}

/// Where the C compiler, which is also the linker, has a file of its own.
fn of_the_compiler(file: &str) -> Option<String> {
    let out = Command::new("cc").arg(format!("-print-file-name={file}")).output().ok()?;
    let path = String::from_utf8(out.stdout).ok()?.trim().to_string();
    Path::new(&path).is_absolute().then_some(path).filter(|path| Path::new(path).exists())
}
