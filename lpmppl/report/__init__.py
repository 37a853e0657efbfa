"""Results read, counted, drawn and written as one self-contained page."""
