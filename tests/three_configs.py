"""Fields of three configs, the real one first."""

FIELDS = {
    "config.hidden_size": (40, 96, 72),
    "config.heads": (4, 6, 9),
    "config.kv_heads": (2, 3, 3),
    "config.intermediate_size": (52, 24, 32),
    "config.positions": (48, 73, 81),
    "config.buckets": (12, 13, 15),
    "config.epsilon": (1e-5, 2e-5, 3e-5),
    "config.name": ("a", "b", "c"),
    "config.switch": (True, True, True),
}
