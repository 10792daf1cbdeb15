"""What an adversary may change: each threat model, and beside it the geometry of its regions.

Threat models import torch on use only; regions are all torch.
"""
