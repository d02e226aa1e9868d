//! argv[0] chooses the command line; everything else is in the library.

fn main() -> std::process::ExitCode {
    acetate::cli::main()
}
