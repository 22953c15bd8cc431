//! What both programs do around their work: arguments, usage, one thread, exit status.

use std::error::Error;
use std::process::ExitCode;

use lexopt::Parser;

/// Runs a program: usage with status 0 where `parse` finds no arguments to work with (`--help`), status 2 for
/// a wrong command line, 1 where the work fails.
pub fn main<A, W>(
    name: &str,
    usage: &str,
    parse: impl FnOnce(Parser) -> Result<Option<A>, lexopt::Error>,
    run: impl FnOnce(A) -> W,
) -> ExitCode
where
    W: Future<Output = Result<(), Box<dyn Error>>>,
{
    let arguments = match parse(Parser::from_env()) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{usage}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n{usage}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
