"""What programs answer."""

# Exit code, standard output, standard error.
Answer = tuple[int, str, str]
