"""One file per method that ONNX Runtime or we ourselves write."""
