//! The engine's rare states. Each is visited by `rare!(Name)` where it happens.

crate::named_states! {
    /// A state that ordinary work seldom reaches.
    pub enum Rare {
        // ---- recovery
        /// a torn tail was cut at opening
        TornTailCut,
        /// a segment with a torn header was removed at opening
        TornHeaderRemoved,
    }
}
