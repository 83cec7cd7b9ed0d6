//! A command that does what its first argument says: the same for WASI 0.2 and for preview 1.

use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["args", rest @ ..] => println!("{}", rest.join("|")),
        ["env"] => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
        }
        ["stdin"] => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .expect("standard input is text");
            print!("{}", text.to_uppercase());
        }
        ["both"] => {
            println!("to stdout");
            eprintln!("to stderr");
        }
        ["list", folder] => return list(folder),
        ["write", file, text] => {
            if let Err(error) = std::fs::write(file, text) {
                eprintln!("cannot write: {error}");
                return ExitCode::FAILURE;
            }
        }
        // Of WASI 0.2 the standard library uses the stable `exit`, which knows 0 and 1 only.
        ["exit", code] => return ExitCode::from(code.parse::<u8>().expect("a small number")),
        ["trap"] => deliberately_broken(),
        ["spin"] => loop {
            std::hint::black_box(());
        },
        _ => {
            eprintln!("no such order: {words:?}");
            return ExitCode::FAILURE;
        }
    }
    std::io::stdout().flush().ok();
    ExitCode::SUCCESS
}

/// Panics, which a backtrace shows under this name.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn deliberately_broken() -> ! {
    panic!("broken on purpose")
}

fn list(folder: &str) -> ExitCode {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let mut names: Vec<String> = entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            println!("{}", names.join(","));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot list: {error}");
            ExitCode::FAILURE
        }
    }
}
