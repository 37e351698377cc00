"""The intermediate representation: data, text form, verifier, interpreter."""
