"""Saliency maps of a shipped file, each method one function of images and target classes."""
