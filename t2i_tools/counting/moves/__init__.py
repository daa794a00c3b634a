"""The moves of a search for an exact count."""
