"""What a head learns from."""
