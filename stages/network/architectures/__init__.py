"""Image classifiers as plain PyTorch modules, one file per family; none of them knows of quantization.

Where torchvision has the family, the names and shapes in the state dict are torchvision's, so that its published
checkpoints fit.
"""
