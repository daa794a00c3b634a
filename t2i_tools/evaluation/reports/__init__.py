"""What a finished run shows: protocol, summary, plots, report."""
