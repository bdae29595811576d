"""Intel Neural Compressor and onnxruntime-tools, run in a pinned Python environment of their own."""
