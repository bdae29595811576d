"""The saliency twin: a classifier's ONNX file, extended by the gradient of one logit with respect to the image.

`twin.build_twin` differentiates a graph in reverse mode, with one rule per operator (`rules.RULES`); the result is an
ordinary ONNX graph. `twin_file.make_twin` does so from file to file.
"""
