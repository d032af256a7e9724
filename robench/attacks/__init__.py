"""Attacks, one family in each file, and what they may see of a network."""
