"""Both ways on one model, measured side by side: the static one and the compiler."""
