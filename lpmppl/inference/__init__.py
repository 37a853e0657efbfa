"""The questions one asks of a society."""
