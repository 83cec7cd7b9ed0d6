//! A command of WASI 0.3 that does what its first argument says.

use wasip3::cli::{environment, exit, stdin, stdout};

struct Command;

wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments: Vec<String> = environment::get_arguments().into_iter().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["args", rest @ ..] => print(format!("{}\n", rest.join("|"))).await,
            ["env"] => {
                let lines = environment::get_environment()
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}\n"));
                print(lines.collect()).await
            }
            ["stdin"] => {
                let (input, _end) = stdin::read_via_stream();
                let bytes = input.collect().await;
                print(String::from_utf8_lossy(&bytes).to_uppercase()).await
            }
            ["exit", code] => {
                exit::exit_with_code(code.parse().expect("a small number"));
                Ok(())
            }
            ["fail"] => Err(()),
            ["trap"] => panic!("broken on purpose"),
            _ => Err(()),
        }
    }
}

async fn print(text: String) -> Result<(), ()> {
    let (mut writer, reader) = wasip3::wit_stream::new();
    let written = stdout::write_via_stream(reader);
    let left = writer.write_all(text.into_bytes()).await;
    drop(writer);
    written.await.map_err(drop)?;
    if left.is_empty() { Ok(()) } else { Err(()) }
}
