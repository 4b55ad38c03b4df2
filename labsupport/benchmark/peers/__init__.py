"""Scripts that each drive one engine, run by that engine's own Python: see ``worker``."""
