"""Text or chat messages -> token ids, and everything else that the engine wants as ids."""
