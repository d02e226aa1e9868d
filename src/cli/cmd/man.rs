//! `acetate man`: for those who make packages.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::failure;
use crate::cli::man;

/// Writes every page below `directory`.
pub fn run(directory: &Path) -> ExitCode {
    for page in man::pages() {
        let folder = directory.join(format!("man{}", page.section));
        let file = folder.join(format!("{}.{}", page.name, page.section));
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| page.text())
            .and_then(|text| std::fs::write(&file, text));
        if let Err(e) = written {
            failure::print(
                "acetate",
                &format!("{} could not be written: {e}", file.display()),
                "name a directory that you may write to",
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
