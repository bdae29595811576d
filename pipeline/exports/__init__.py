"""What a run becomes in other people's systems: an experiment of MLflow, images of a PACS."""
