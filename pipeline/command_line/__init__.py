"""The commands, as functions that read their options and say what came out; `pipeline.cli` names them."""
