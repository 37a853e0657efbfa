"""What ops and handlers share, and no model sees."""
