"""Groups of threat models that many attacks are for."""

NORM_BALLS = ("linf", "l2", "l1")
BOUND_PATCHES = ("placed-patch", "object-patch")
"""Patches whose places are given."""

GRADIENT_STEPS = (*NORM_BALLS, "mask", "series", *BOUND_PATCHES)
"""Those in which a search can move that asks the region alone where it may step."""
