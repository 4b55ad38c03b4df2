"""Tested references of what single labs teach, where no other room needs them.

:mod:`attention` is lab 04's: one new token against a cache, attention in tiles, parts put together. :mod:`counting`
counts what the lab counts: multiply-adds, and sequences that fit. :mod:`streaming` is lab 09's: what the
client of a stream must do itself.
"""
