"""What every room may use: files, forks, JSON lines, safe text, colors, options, samples, progress, retries."""
