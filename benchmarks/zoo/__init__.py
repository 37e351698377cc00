"""The zoo: hundreds of tiny architectures of transformers, each converted and proved."""
