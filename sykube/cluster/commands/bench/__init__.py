"""What runs cost, measured in a cluster."""
