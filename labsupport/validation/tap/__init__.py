"""What runs in the server's processes for ``labs trace``: plain Python, so that it works in NVIDIA's container too."""
