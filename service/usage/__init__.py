"""What every metered request cost, durably."""
