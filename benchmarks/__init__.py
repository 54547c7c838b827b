"""How fast elmolib is beside other implementations of ELMo: `python -m benchmarks`."""
