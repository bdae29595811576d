"""The search for the fastest file within limits: its study, how a file is scored, and the tuned variant."""
