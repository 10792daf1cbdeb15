"""Results that others can check: verification, and bundles to hand on."""
