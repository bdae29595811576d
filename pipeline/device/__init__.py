"""The device kit: one zip that answers and times a variant anywhere, and what it found, taken back into the run."""
