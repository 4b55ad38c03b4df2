"""The Python models of a repository. ``labs assemble`` copies them byte for byte.

They run in the server's Python, inside NVIDIA's container as well as here, so they import nothing of labsupport: only
numpy, transformers, Triton's utilities, and the helpers that are copied beside them.
"""
