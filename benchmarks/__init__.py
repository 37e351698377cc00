"""What the compiler reaches at real sizes: parity, time and memory. `make bench` runs it."""
