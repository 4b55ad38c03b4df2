"""A checkpoint -> an engine folder, and what runs it: graphs compiled ahead of time, a paged KV cache, an executor."""
