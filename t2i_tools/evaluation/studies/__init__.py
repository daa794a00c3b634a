"""Studies built on runs: sizes, searches, re-use, retrieval."""
