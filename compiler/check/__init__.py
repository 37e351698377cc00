"""The proof: the package and the transformers model compute the same function, measured against float64."""
