"""What the controller reconciles, one kind a module."""
