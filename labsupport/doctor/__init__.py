"""The doctor: what this machine can do, and whether a model fits.

::

    machine.py   the facts, read without judging       shapes.py   the sizes of models and GPUs
    rows.py      the judgments, one row each           memory.py   will it fit: the formula
    examine.py   the round: facts into rows            report.py   both as text and JSON
    classroom.py what a class on one server needs      classroom_measure.py   what one learner takes
"""
