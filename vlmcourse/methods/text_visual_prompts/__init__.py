"""Methods that learn prompts for both towers."""
