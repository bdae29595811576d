"""One ONNX file in, one compiled file out, without a configuration."""
