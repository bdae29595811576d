"""One seam for fan-out: workers compute a run's stages ahead of its own flow, file in, file out."""
