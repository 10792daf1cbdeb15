"""Passes through a network: how many samples at once, in which form of the network, and what they tell."""
