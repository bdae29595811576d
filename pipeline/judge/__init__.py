"""Measurements held against gates, and against another run."""
