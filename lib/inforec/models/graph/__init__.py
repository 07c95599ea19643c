"""Models that propagate embeddings along the user-item graph."""
