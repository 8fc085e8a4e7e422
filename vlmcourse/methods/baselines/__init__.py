"""What adaptation is measured against: zero-shot classification and the linear probe."""
