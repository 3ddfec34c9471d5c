"""What is measured, and how to run it again: each program prints a table and a line of JSON."""
