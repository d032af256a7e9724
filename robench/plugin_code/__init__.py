"""The code of plugins: how it is read, what it can reach, and what it may not leave behind."""
