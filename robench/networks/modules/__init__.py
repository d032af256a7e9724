"""Torch modules that robench did not write, as networks."""
