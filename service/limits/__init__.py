"""How much one caller may ask for: rates in sliding windows, and streams at the same time."""
