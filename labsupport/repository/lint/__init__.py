"""A pre-flight for any TensorRT-LLM model repository: each rule is a pain that many have had."""

from __future__ import annotations

from labsupport.repository.lint import rules_engine, rules_files, rules_serving, rules_text  # noqa: F401  (they register)
from labsupport.repository.lint.rules import RULES, Finding, Rule
from labsupport.repository.lint.run import lint, mend

__all__ = ["RULES", "Finding", "Rule", "lint", "mend"]
