"""What every room may use: files, JSON lines, network, progress, retries."""
