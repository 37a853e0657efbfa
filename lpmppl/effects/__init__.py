"""The language: ops say what can happen, handlers say what it means."""
