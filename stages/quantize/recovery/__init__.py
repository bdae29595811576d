"""Steps that win back the accuracy that integers cost."""
