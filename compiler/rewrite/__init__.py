"""The rule language: loading, matching, rewriting."""
