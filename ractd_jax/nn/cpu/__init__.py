"""How a CPU multiplies fast; without it only speed changes."""
