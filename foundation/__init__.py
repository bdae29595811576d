"""What everybody stands on: errors, settings, files and their digests, the record of a run, progress, locks."""
