"""What runs on the device: files that are copied into every kit as they are.

Nothing here may import anything but Python's own library, numpy, onnxruntime and its neighbours, because the rest of
edgeproof is not there.
"""
