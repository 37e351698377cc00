"""From a transformers model to a Program of the aten level."""
