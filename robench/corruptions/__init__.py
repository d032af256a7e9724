"""Corruptions, one family in each file."""
