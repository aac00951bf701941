"""Models of the accelerator: functional, cycles, energy and resources."""
