"""Models that encode a user's own items and decode a law over all items."""
