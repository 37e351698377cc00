"""Passes from idioms to Keras layers."""
