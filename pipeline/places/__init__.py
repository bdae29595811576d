"""The files of a run at other places: asking them, and keeping what they answered."""
