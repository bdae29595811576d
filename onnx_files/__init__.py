"""What knows ONNX files: reading with care, one form for all, questions to a graph, sessions, publishing."""
