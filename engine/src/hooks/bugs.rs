//! The engine's planted bugs. Each leaves out one rule where `planted!(Name)` stands.

crate::named_states! {
    /// A rule left out on purpose.
    pub enum Bug {
        // ---- write-ahead log
        /// commits at Local are acknowledged before the sync
        AcknowledgeBeforeSync,
    }
}
