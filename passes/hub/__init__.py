"""Passes that recognise idioms."""
