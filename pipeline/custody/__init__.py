"""The chain of custody: whether a run folder is still what the run left, and who says so."""
