"""Passes from the aten level to the ops level."""
