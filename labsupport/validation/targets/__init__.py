"""Targets: our engine in this process, transformers, Triton over the network, TensorRT-LLM in its container."""
