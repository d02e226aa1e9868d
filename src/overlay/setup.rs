//! Why a mount cannot be had: sentences for a person.

/// What is wrong, on which path, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupError {
    /// What failed, with the path and the system's reason.
    pub what: String,
    /// What to do about it; empty where nothing useful can be said.
    pub hint: String,
}

impl SetupError {
    /// An error with a hint.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        SetupError {
            what: what.into(),
            hint: hint.into(),
        }
    }
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.hint.is_empty() {
            write!(f, "{}", self.what)
        } else {
            write!(f, "{} ({})", self.what, self.hint)
        }
    }
}

impl std::error::Error for SetupError {}
