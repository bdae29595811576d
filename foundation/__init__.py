"""What everybody stands on: errors, settings, files and their digests, the record of a run, progress, locks."""

import os

# onnxruntime from 1.31 on looks up its vendor's telemetry host and writes an id into the temporary folder; only this,
# set before it is imported, stops both. Everything of ours imports this package first, and children inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
