"""Token ids -> text, each response for itself."""
