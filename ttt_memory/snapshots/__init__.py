"""Fast weights as bytes and back."""
