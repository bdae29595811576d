"""Training with PACT and saliency guidance, and the gradient maps of what was trained."""
