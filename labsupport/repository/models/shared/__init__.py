"""Helpers that are copied beside the models that use them."""
