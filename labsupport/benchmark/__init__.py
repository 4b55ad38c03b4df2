"""Engines side by side, and beside the limits of the machine."""
