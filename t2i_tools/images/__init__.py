"""From a request to an image: settings, generation, sizes, files."""
