"""Stage 4: a work unit on a model that is loaded, from the checks before it to the audit after it."""
