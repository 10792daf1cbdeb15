"""Where a run is, for those who watch it."""
