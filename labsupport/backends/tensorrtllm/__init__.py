"""The backend ``tensorrtllm`` on our engine: the tensors of NVIDIA's C++ backend at 0.20, answered by our executor.

``model.py`` is what Triton loads. The way of a request: :mod:`inputs` (tensors -> requests), :mod:`scheduler` (one
thread runs the batch, one sends), :mod:`outputs` (results -> tensors), :mod:`replies` (senders and cancellation).
Beside it :mod:`parameters` (the config), :mod:`load` (the engine), :mod:`refused` (what is not served) and
:mod:`metrics` (gauges).
"""
