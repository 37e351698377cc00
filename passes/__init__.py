"""The passes, level by level."""
