"""From a run folder's files to what a reviewer reads."""
