"""Helpers for every other folder: files, forks, JSON lines, safe text, colors, options, samples, progress, retries."""
