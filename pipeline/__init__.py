"""The spine: configuration, the run folder, the flow through the stages, gates and the nightly job."""
