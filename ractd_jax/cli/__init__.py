"""What the command line says, and what is then done."""
