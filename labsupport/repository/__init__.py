"""Engine folder and tokenizer -> Triton model repository, and a pre-flight for anybody's repository."""
