"""The unattended job: tonight's run, the accepted one, the history."""
