"""From a checkpoint to ONNX: the float baseline, and the trained integers as they are."""
