"""What shell, app and scripts share."""
