"""The test of the test: faults planted in our engine, server and client, harmless variations, and what each check sees.

Nothing here is on the product's way: a fault is a context manager that exchanges a function or a weight and puts it
back. :mod:`catalogue` lists them, :mod:`matrix` runs them, ``labs mutation-matrix`` prints what came out.
"""
