"""The proof: the package against the model, backend by backend."""
