"""Methods that learn what is put before the image tower: pixels, or tokens among the patches."""
