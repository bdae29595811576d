"""The network as an object: architectures, PACT put into them, and checkpoints; used by training and export."""
