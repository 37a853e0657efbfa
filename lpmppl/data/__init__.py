"""Synthetic populations: the tables they are raked to, how they are built, saved and cached."""
