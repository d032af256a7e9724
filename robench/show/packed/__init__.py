"""What a published folder holds: how its rows and its manifest are packed."""
