"""The rungs, L0 to L7, one module each: ``check(material)`` -> its verdicts, by rules that are fixed in advance."""
