"""The way from text to text with a memory: streams whole characters, stops on text, passes cancellation on."""
