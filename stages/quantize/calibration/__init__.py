"""Ranges of activations, found image by image."""
