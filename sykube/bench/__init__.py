"""What runs cost on this machine: how it is measured, judged and kept."""
