"""Custom handlers for Hugging Face inference endpoints, one a model family, each with requirements of its own.

A handler lies beside the weights of its model as ``handler.py`` with ``requirements.txt``, and imports nothing of ours.
Families differ in where a system prompt goes, and in what their tokenizers need.
"""
