"""What administrators do, and the trail that it leaves."""
