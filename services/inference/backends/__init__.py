"""What runs a model's forward pass."""
