"""Graphs of the same function that run faster in integers."""
