//! `tombolo completions`: the script that makes a shell complete commands and flags.

use clap::CommandFactory as _;

use crate::arguments::{Arguments, Completions, Shell};
use crate::error::Error;
use crate::output;

/// Prints the script.
pub fn run(arguments: &Completions) -> Result<(), Error> {
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tombolo", &mut script);
    output::write_bytes(&script)
}
