"""`robench.evaluate`: networks that robench did not train, in Python and in notebooks."""
