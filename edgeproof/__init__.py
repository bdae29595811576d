"""The face for Python: run a configuration, quantize a file, write its twin, open a run."""
