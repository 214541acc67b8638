//! The process that a delegate runs in when it is isolated. The host starts it and speaks to it over standard input; it is of no
//! use to people.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    {
        use delegraph_types::Parallel;
        let started_by_host = std::env::args()
            .nth(1)
            .is_some_and(|word| word.starts_with("--delegraph-worker="));
        if started_by_host {
            return match delegraph_host::worker::serve(|threads| Parallel::new(delegraph_threads::pool(), threads)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("delegraph-worker: {error}");
                    ExitCode::from(70)
                }
            };
        }
    }
    eprintln!("delegraph-worker is started by the host of a delegate that runs isolated");
    ExitCode::from(2)
}
