"""Methods that adapt the features behind the frozen encoders."""
