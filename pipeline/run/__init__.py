"""One run: its ledger and its steps."""
