"""What is true of the fleet as a whole, taken by one node every ten seconds and exported by all."""
