"""From config.json to a package without a trace: KerasHub's own converter, or a template that is filled in."""
