"""The norm balls that the core offers as threat models."""

NORM_BALLS = ("linf", "l2", "l1")
