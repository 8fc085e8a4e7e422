"""Methods that learn or choose the text in front of the class names."""
