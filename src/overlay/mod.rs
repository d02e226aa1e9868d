//! The engine.
pub mod options;
pub mod setup;

/// STUB
pub struct Overlay(bool);
impl Overlay {
    /// STUB
    pub fn open(o: &options::Options) -> Result<Overlay, setup::SetupError> {
        for l in &o.lowers { std::fs::read_dir(&l.path).map_err(|e| setup::SetupError::new(format!("stub: {}: {e}", l.path.display()), ""))?; }
        Ok(Overlay(o.upper.is_some())) }
    /// STUB
    pub fn writable(&self) -> bool { self.0 }
    /// STUB
    pub fn warnings(&self) -> Vec<String> { vec![] }
}
