"""This machine: its environment, and what is missing on it."""
