"""Checkpoints of fewer bits: :mod:`arithmetic` is the idea, :mod:`recipes` the choices, :mod:`quantize` the work.

:mod:`calibrate` asks ModelOpt what the activations look like, :mod:`forms` makes the tensors that TensorRT-LLM stores,
:mod:`sensitivity` says which errors matter, :mod:`compensate` lets them cancel,
:mod:`quality` measures what was lost, and :mod:`bench` sets all recipes side by side.
"""
