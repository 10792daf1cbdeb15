"""Stages 1 and 2: what a run is to evaluate, cell by cell."""
