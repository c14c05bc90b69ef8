"""What watches ATP. Nothing in here is imported by the service."""
