"""Image files as other tools write them, and what they were told: written from the tools' sources alone."""
