"""Attacks of other libraries, by name."""
