"""What a pipeline is, whatever its family."""
