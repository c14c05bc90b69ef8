"""Who is online, across the fleet: exact counts, peaks and devices, at no cost for those who are only connected."""
