"""The weight map, its laws, and the transfer of a checkpoint into a KerasHub preset."""
