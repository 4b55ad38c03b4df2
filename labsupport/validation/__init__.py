"""Is the served model right? A ladder of checks, each with a fixed rule, a budget for false alarms and a stated power.

What is asked of: :mod:`target`, :mod:`targets`. The truth: :mod:`reference`. Numbers: :mod:`scoring`,
:mod:`statistics`. The rungs: :mod:`levels`, climbed by :mod:`ladder`. Answers are :mod:`verdict`.
"""
